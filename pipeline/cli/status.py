"""`chimera status`: the state of the pipeline on one screen."""

import sys

import click
import orjson

from pipeline.cli.monitored import from_monitor, looked_at_once
from pipeline.cli.status_output import screen
from pipeline.cli.terminal import terminal
from pipeline.config import load_settings
from pipeline.errors import UnavailableError
from pipeline.operations.monitor.state import Health


@click.command()
@click.option(
    "--url", metavar="URL", help="Ask this running monitor instead of looking, such as http://127.0.0.1:6067."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the state as one JSON object; docs/status.schema.json describes it."
)
def status(url: str | None, as_json: bool) -> None:
    """Show the state of the pipeline on one screen.

    Looks twice, two seconds apart, at the consumer group, the topics, the tables and the dead letters, and writes
    nothing. A running monitor knows more: rates, the last hour, and since when a trouble lasts; --url asks it.

    \b
    Exit codes:
      0   all is well
      1   there is a trouble; it is named with a way out
      69  Kafka, ClickHouse or the monitor doesn't answer
      78  a setting, topics.yaml or a schema is wrong

    \b
    Examples:
      chimera status
      chimera status --json | jq .troubles
      chimera status --url http://127.0.0.1:6067
    """
    settings = load_settings()
    state = from_monitor(url, settings.monitor.answer_seconds) if url else looked_at_once(settings)
    if as_json:
        click.echo(orjson.dumps(state))
    else:
        console = terminal()
        console.print(screen(state, console.width))
    if Health.CRITICAL in {state.kafka.verdict, state.clickhouse.verdict}:
        sys.exit(UnavailableError.exit_code)
    sys.exit(0 if state.verdict is Health.OK else 1)
