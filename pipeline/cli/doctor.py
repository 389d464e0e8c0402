"""`chimera doctor`: check everything that must hold before a worker starts, and while it runs."""

from dataclasses import asdict

import click
import orjson

from pipeline.operations.doctor.examination import examine
from pipeline.operations.doctor.results import CheckResult, Grade, exit_code_of

_COLOURS = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "red"}


@click.command()
@click.option("--mend", is_flag=True, help="Remove barriers that killed replays have left; nothing else is changed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def doctor(context: click.Context, mend: bool, as_json: bool) -> None:
    """Check all that must hold before a worker starts, and while it runs.

    Checks settings, topics.yaml and schemas; Kafka, ClickHouse and their clocks; topics, rights, registry and group;
    migrations, tables, views, grants, deduplication windows and free disk; barriers that killed replays have left; and
    whether the hash key is the one that the rows were stored with. Each line is ok, warn or fail, and says what to do.
    Run it with the worker's own settings. Changes nothing without --mend.

    \b
    Exit codes:
      0   nothing fails; warnings are no failure
      1   something fails
      69  Kafka, ClickHouse or the registry doesn't answer
      78  a setting, topics.yaml or a schema is wrong

    \b
    Examples:
      chimera doctor
      chimera doctor --json | jq '.findings[] | select(.verdict != "ok")'
      chimera doctor --mend
    """
    findings = []
    for finding in examine(mend=mend):
        findings.append(finding)
        if not as_json:
            _print(finding)
    code = exit_code_of(findings)
    if as_json:
        verdicts = {finding.verdict for finding in findings}
        worst = next((each for each in (Grade.FAIL, Grade.WARN) if each in verdicts), Grade.OK)
        click.echo(orjson.dumps({"verdict": worst, "findings": [_facts(each) for each in findings]}))
    context.exit(code)


def _facts(finding: CheckResult) -> dict[str, str]:
    return {name: str(value) for name, value in asdict(finding).items() if name != "exit_code"}


def _print(finding: CheckResult) -> None:
    verdict = click.style(f"{finding.verdict:4}", fg=_COLOURS[finding.verdict])
    mend = f"; to mend: {finding.mend}" if finding.mend else ""
    click.echo(f"{verdict}  {finding.check:15}  {finding.detail}{mend}")
