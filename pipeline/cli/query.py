"""`chimera query`: run a query of the specification, or one from standard input."""

import sys
from itertools import islice

import click

from pipeline.cli.columns import print_columns
from pipeline.cli.query_output import FORMATS
from pipeline.clickhouse.asking import asking
from pipeline.clickhouse.queries import load_queries
from pipeline.config import load_settings
from pipeline.errors import ChimeraError, unknown_key_message

_TABLE = "table"
_TABLE_ROWS = 1000


@click.command()
@click.argument("name", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    default=_TABLE,
    show_default=True,
    help="Form of the answer; json is one object per row and line.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), help=f"Most rows to print.  [default: {_TABLE_ROWS:,} in a table, else all]"
)
@click.option("--sql", is_flag=True, help="Print the query called NAME instead of running it.")
def query(name: str | None, form: str, limit: int | None, sql: bool) -> None:
    """Run a query of the specification by its name, or any SELECT from standard input.

    Without NAME and without a query on standard input, lists the names. Tables are those of the database
    CHIMERA_CLICKHOUSE__DATABASE. A query can change nothing: ClickHouse runs it with readonly=2, whatever the user may
    do elsewhere. See docs/queries.md.

    \b
    Exit codes:
      0   answered, even if there are no rows
      2   the options are wrong, or there is no query of this name
      69  ClickHouse doesn't answer
      70  ClickHouse refuses the query
      78  a setting is wrong

    \b
    Examples:
      chimera query
      chimera query ui_events_engagement
      chimera query llm_events_cost --format csv > cost.csv
      echo 'SELECT count() FROM ui_events' | chimera query --format json
    """
    text = _named(name) if name is not None else "" if sys.stdin.isatty() else sys.stdin.read()
    if not text.strip(" \t\r\n;"):
        print_columns([(each.name, each.title) for each in load_queries().values()])
        return
    if sql:
        click.echo(text)
        return
    _run(name, text, form, limit or (_TABLE_ROWS if form == _TABLE else None))


def _named(name: str) -> str:
    known = load_queries()
    if name not in known:
        raise click.UsageError(f"{name}: {unknown_key_message(known, name)}")
    return known[name].sql


def _run(name: str | None, text: str, form: str, limit: int | None) -> None:
    try:
        with asking(load_settings().clickhouse, text) as answer:
            FORMATS[form](answer.columns, islice(answer.rows, limit))
            if limit is not None and next(answer.rows, None) is not None:
                click.echo(f"There are more than {limit:,} rows; --limit prints more.", err=True)
    except ChimeraError as error:
        if name and load_queries()[name].refused:
            raise type(error)(
                f"{error}; ClickHouse refuses this query as the specification has it: {name}_corrected asks the same"
            ) from error
        raise
