"""`chimera topics`: compare the cluster's topics with topics.yaml, and create or alter them."""

import sys
from collections import Counter

import click

from pipeline.catalog import TopicSpec
from pipeline.cli.groups import Group
from pipeline.cli.terminal import terminal
from pipeline.config import load_settings
from pipeline.kafka.topics import Action, Change, Setting, TopicAdmin, plan
from pipeline.operations.doctor.declared import declared_catalog

_CHANGES = 2
_STYLES = {Action.CREATE: "green", Action.ALTER: "yellow", Action.KEEP: "dim"}
_WORDS = {Action.CREATE: "to create", Action.ALTER: "to alter", Action.KEEP: "as declared"}


@click.group(cls=Group)
def topics() -> None:
    """Create and alter topics as topics.yaml declares.

    Topics that topics.yaml doesn't declare are left alone. Three things are an error, before any change is made: fewer
    partitions, another replication factor for an existing topic, and more replicas than brokers. So is what the worker
    would refuse: an unknown family, a key that is no field, or a schema that doesn't fit its table.

    \b
    Examples:
      chimera topics plan
      chimera topics apply
      CHIMERA_TOPICS__REPLICATION=3 chimera topics apply --yes
    """


@topics.command("plan")
def show() -> None:
    """Show how the cluster differs from topics.yaml.

    Changes nothing. + marks a topic to create, ~ a topic to alter (old → new), = a topic that is as declared.

    \b
    Exit codes:
      0   the cluster is as declared
      2   there are changes to make
      69  the broker doesn't answer
      70  the broker refuses the request
      78  a setting, topics.yaml or a schema is wrong, or topics.yaml asks for an
          impossible change

    \b
    Examples:
      chimera topics plan
      chimera topics plan; [ $? -eq 2 ] && chimera topics apply --yes   # not after 69, 70 or 78
    """
    _, changes = _planned()
    if changes:
        click.get_current_context().exit(_CHANGES)


@topics.command()
@click.option("-y", "--yes", is_flag=True, help="Make the changes without asking.")
def apply(yes: bool) -> None:
    """Create and alter topics as topics.yaml declares.

    Shows the plan and asks for confirmation; without a terminal, --yes is required. A second run changes nothing.

    \b
    Exit codes:
      0   the topics are as declared
      1   not confirmed
      2   there are changes, but neither a terminal nor --yes
      69  the broker doesn't answer
      70  the broker refused a change; nothing was changed if it could refuse
          in advance
      78  a setting, topics.yaml or a schema is wrong, or topics.yaml asks for an
          impossible change

    \b
    Examples:
      chimera topics apply
      chimera topics apply --yes
    """
    admin, changes = _planned()
    if not changes:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("there is no terminal for a confirmation: add --yes to make these changes")
        click.confirm("Make these changes?", abort=True, err=True)
    admin.apply(changes)
    click.echo("Done.", err=True)
    if any(change.grows and change.topic.fills for change in changes):
        click.echo("Running workers take new partitions over within 30 s; none needs a restart.", err=True)


def _planned() -> tuple[TopicAdmin, list[Change]]:
    """Print the plan for every topic; return the changes to make."""
    settings = load_settings()
    declared = declared_catalog(settings).topics
    admin = TopicAdmin(settings.kafka)
    changes = plan(declared, admin.read(topic.name for topic in declared), settings.topics.file)
    console = terminal()
    width = max(len(topic.name) for topic in declared)
    for change in changes:
        console.print(_line(change, width), style=_STYLES[change.action], markup=False, soft_wrap=True)
    counts = Counter(change.action for change in changes)
    summary = ", ".join(f"{counts[action]} {words}" for action, words in _WORDS.items())
    console.print(f"{summary}; Kafka at {settings.kafka.bootstrap_servers}", markup=False, soft_wrap=True)
    rolled_up = {topic.state_of for topic in declared if topic.state_of}
    for change in changes:
        if change.grows and change.topic.key:
            click.echo(_warning(change.topic, rolled_up=change.topic.family in rolled_up), err=True)
    return admin, [change for change in changes if change.action is not Action.KEEP]


def _warning(topic: TopicSpec, *, rolled_up: bool) -> str:
    """Return the warning about more partitions of a topic with keys."""
    warning = (
        f"warning: {topic.name}: with more partitions, new records of a {topic.key} may go to another partition than "
        "its older records; let the worker catch up first"
    )
    if rolled_up:
        warning += (
            f". Every open hour of a {topic.key} that moves is split into two windows: `chimera rollup verify` finds "
            "them once the hours are closed, and `chimera rollup repair` repairs them"
        )
    return warning


def _line(change: Change, width: int) -> str:
    return f"{change.action} {change.topic.name:{width}}  {', '.join(map(_setting, change.settings))}".rstrip()


def _setting(setting: Setting) -> str:
    value = setting.new if setting.old is None else f"{setting.old} → {setting.new}"
    return f"{setting.name} {value}"
