"""`chimera topics`: compare the cluster's topics with topics.yaml, and make them the same."""

import sys
from collections import Counter

import click
from rich.console import Console

from pipeline.catalog import TopicSpec, load_topics
from pipeline.config import load_settings
from pipeline.kafka.topics import Action, Change, Setting, TopicAdmin, plan

_CHANGES = 2
_STYLES = {Action.CREATE: "green", Action.ALTER: "yellow", Action.KEEP: "dim"}
_WORDS = {Action.CREATE: "to create", Action.ALTER: "to alter", Action.KEEP: "as declared"}


@click.group()
def topics() -> None:
    """Compare the topics of the cluster with topics.yaml, and make them the same.

    Topics that topics.yaml doesn't declare are left alone. Fewer partitions, another replication factor of an existing
    topic, or more replicas than there are brokers, are an error before anything is changed.

    \b
    Examples:
      chimera topics plan
      chimera topics apply
      CHIMERA_TOPICS__REPLICATION=3 chimera topics apply --yes
    """


@topics.command("plan")
def show() -> None:
    """Show how the cluster differs from topics.yaml; changes nothing.

    \b
    + is created, ~ is altered (old → new), = is as declared.

    \b
    Exit codes:
      0   nothing to do
      2   there are changes to make
      69  the broker doesn't answer
      70  the broker refuses to tell
      78  topics.yaml or a setting is wrong, or asks for what Kafka can't do

    \b
    Examples:
      chimera topics plan
      chimera topics plan; [ $? -eq 2 ] && chimera topics apply --yes   # not after 69, 70 or 78
    """
    _, changes = _planned()
    if changes:
        click.get_current_context().exit(_CHANGES)


@topics.command()
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
def apply(yes: bool) -> None:
    """Create and alter topics until the cluster has what topics.yaml declares.

    Shows the plan and asks first; without a terminal to ask on, --yes has to be given. Run again, it has nothing to do.

    \b
    Exit codes:
      0   the topics are as declared
      1   not confirmed
      2   there are changes, but neither a terminal nor --yes
      69  the broker doesn't answer
      70  the broker refuses a change; when it is one it can refuse beforehand, nothing was changed
      78  topics.yaml or a setting is wrong, or asks for what Kafka can't do

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
            raise click.UsageError("there is no terminal to ask on: add --yes to make these changes")
        click.confirm("Make these changes?", abort=True, err=True)
    admin.apply(changes)
    click.echo("Done.", err=True)


def _planned() -> tuple[TopicAdmin, list[Change]]:
    """Compare, show what comes of every topic, and return what there is to do."""
    settings = load_settings()
    declared = load_topics(settings.topics.file, settings.topics.replication)
    admin = TopicAdmin(settings.kafka)
    changes = plan(declared, admin.read(topic.name for topic in declared), settings.topics.file)
    terminal = Console(highlight=False, soft_wrap=True)
    width = max(len(topic.name) for topic in declared)
    for change in changes:
        terminal.print(_line(change, width), style=_STYLES[change.action], markup=False)
    counts = Counter(change.action for change in changes)
    summary = ", ".join(f"{counts[action]} {words}" for action, words in _WORDS.items())
    terminal.print(f"{summary}; Kafka at {settings.kafka.bootstrap_servers}", markup=False)
    rolled_up = {topic.state_of for topic in declared if topic.state_of}
    for change in changes:
        if change.grows and change.topic.key:
            click.echo(_warning(change.topic, rolled_up=change.topic.family in rolled_up), err=True)
    return admin, [change for change in changes if change.action is not Action.KEEP]


def _warning(topic: TopicSpec, *, rolled_up: bool) -> str:
    """What more partitions do to the records of a key."""
    warning = (
        f"warning: {topic.name}: with more partitions, the records of a {topic.key} may go to another partition than "
        "those before; let the worker catch up first"
    )
    if rolled_up:
        warning += (
            f". Every open hour of a {topic.key} that moves is split into two windows: `chimera rollup verify` finds "
            "them when the hours have closed, `chimera rollup repair` mends them"
        )
    return warning


def _line(change: Change, width: int) -> str:
    return f"{change.action} {change.topic.name:{width}}  {', '.join(map(_setting, change.settings))}".rstrip()


def _setting(setting: Setting) -> str:
    value = setting.new if setting.old is None else f"{setting.old} → {setting.new}"
    return f"{setting.name} {value}"
