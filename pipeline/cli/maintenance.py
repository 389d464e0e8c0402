"""`chimera maintenance`: the specification's daily, weekly and monthly tasks, reported or run."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import orjson

from pipeline.catalog import load_catalog
from pipeline.cli.progress import progress_bar
from pipeline.clickhouse.client import connect, explained
from pipeline.config import Settings, load_settings
from pipeline.operations.storage.maintenance import CHECKS, Finding, Period, Section, look
from pipeline.operations.storage.maintenance import run as mend
from pipeline.operations.storage.maintenance.report import Subject
from pipeline.operations.storage.tables import live_tables, stored_tables


@click.command()
@click.argument("period", required=False, type=click.Choice([each.value for each in Period]))
@click.option("--execute", is_flag=True, help="Run the statements of the report; without it, nothing is changed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of Markdown.")
def maintenance(period: str | None, execute: bool, as_json: bool) -> None:
    """Report what the tables need: today, this week, this month. Without a period, all three.

    The report is Markdown. Findings with a statement can be mended: with --execute, the statements run one after the
    other, and the report says which did. They delete nothing but days past the retention of topics.yaml. Numbers and
    forms of queries are printed, no content of events. docs/storage.md describes the checks.

    \b
    Exit codes:
      0   reported; with --execute: all statements ran
      1   something is urgent, such as a disk that is nearly full; or a replay or
          repair of a table is under way
      69  ClickHouse doesn't answer
      70  ClickHouse refuses, or a table is missing
      78  a setting or topics.yaml is wrong

    \b
    Examples:
      chimera maintenance daily
      chimera maintenance weekly --execute
      chimera maintenance monthly --json | jq '.sections[] | select(.findings | length > 0)'
    """
    settings = load_settings()
    with explained(settings.clickhouse), connect(settings.clickhouse) as client:
        tables = stored_tables(load_catalog(settings))
        live_tables(settings.clickhouse, client, tables)
        checks = [check for check in CHECKS if period in {None, check.period}]
        sections = list(look(Subject(settings.clickhouse, client, tables), checks))
    ran = _run(settings, sections) if execute else []
    if as_json:
        click.echo(orjson.dumps(_facts(settings, sections, ran)))
    else:
        click.echo("\n".join(_markdown(settings, sections, ran)))
    click.get_current_context().exit(1 if any(each.urgent for one in sections for each in one.findings) else 0)


def _run(settings: Settings, sections: Iterable[Section]) -> list[str]:
    """Run each statement once; return them."""
    findings = {each.statement: each for one in sections for each in one.findings if each.statement}
    with progress_bar() as progress:
        for finding in progress.track(list(findings.values()), description="Maintenance"):
            mend(settings.clickhouse, finding)
    return [statement for statement in findings if statement]


def _markdown(settings: Settings, sections: Sequence[Section], ran: list[str]) -> Iterable[str]:
    clickhouse = settings.clickhouse
    yield f"# Maintenance of {clickhouse.database} at {clickhouse.address}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    for section in sections:
        yield f"\n## {section.check.title} ({section.check.period})\n"
        if section.unavailable:
            yield f"Not available: {section.unavailable}"
        elif not section.findings:
            yield "Nothing to do."
        for finding in section.findings:
            yield f"- {'**urgent** ' if finding.urgent else ''}{_place(finding)}{finding.text}"
            if finding.statement:
                yield f"  - {'ran' if finding.statement in ran else 'run'}: `{finding.statement.replace('`', '')}`"
    statements = {each.statement for one in sections for each in one.findings if each.statement}
    if ran:
        yield f"\n{len(ran)} statements ran."
    elif statements:
        yield f"\n{len(statements)} statements to run: add --execute."


def _place(finding: Finding) -> str:
    return f"`{finding.table}`: " if finding.table else ""


def _facts(settings: Settings, sections: Sequence[Section], ran: list[str]) -> dict[str, Any]:
    return {
        "server": settings.clickhouse.address,
        "database": settings.clickhouse.database,
        "at": datetime.now(UTC).isoformat(),
        "sections": [
            {
                "check": section.check.name,
                "title": section.check.title,
                "period": section.check.period,
                "unavailable": section.unavailable or None,
                "findings": [
                    {
                        "table": finding.table or None,
                        "text": finding.text,
                        "urgent": finding.urgent,
                        "figures": finding.figures,
                        "statement": finding.statement,
                        "ran": finding.statement in ran if finding.statement else None,
                    }
                    for finding in section.findings
                ],
            }
            for section in sections
        ],
    }
