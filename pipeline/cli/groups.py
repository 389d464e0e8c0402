"""A group of commands whose help lists the first sentence of each, whole."""

import click

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C has ended."""


class Group(click.Group):
    """Lists its commands with whole sentences; click itself cuts them to one line."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands; long sentences go on in the next line."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, _summary(command)) for name, command in commands if command and not command.hidden]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _summary(command: click.Command) -> str:
    """Return the first paragraph of the help, in one line."""
    first = (command.short_help or command.help or "").strip().partition("\n\n")[0]
    return " ".join(first.split()).rstrip(".")
