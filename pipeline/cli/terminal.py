"""The terminal that commands print to; in a pipe or a file, nothing is cut or folded to a width."""

from rich.console import Console

_UNLIMITED = 100_000  # columns; a table takes only as many as its cells need


def terminal(*, stderr: bool = False) -> Console:
    """Return standard output, or standard error, for tables and progress.

    On a terminal, tables are as wide as it is. Elsewhere they are as wide as their cells need: whoever searches the
    output must find whole values.
    """
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = _UNLIMITED
    return console
