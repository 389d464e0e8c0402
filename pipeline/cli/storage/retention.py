"""`chimera storage plan` and `apply`: the retention that topics.yaml declares, on the server."""

from typing import Any

import click
import orjson

from pipeline.cli.storage.group import amount_facts, amount_text, confirm, opened, storage, tables_argument
from pipeline.operations.storage.retention import RetentionPlan, apply_plan, make_plans

_CHANGES = 2


@storage.command("plan")
@tables_argument
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def show(context: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Show how the tables differ from their retention, and what the server will move and delete.

    Changes nothing. Without tables, all are shown.

    \b
    Exit codes:
      0   the tables are as declared
      2   there are changes to make
      69  ClickHouse doesn't answer
      70  ClickHouse refuses, a table is missing, or the policy lacks a volume
      78  a setting or topics.yaml is wrong

    \b
    Examples:
      chimera storage plan
      chimera storage plan ui_events --json
    """
    with opened(names) as (settings, tables, client):
        plans = make_plans(settings.clickhouse, client, tables)
    if as_json:
        click.echo(orjson.dumps({"tables": [_facts(plan) for plan in plans]}))
    else:
        _print(plans, settings.clickhouse.address)
    context.exit(_CHANGES if any(plan.statements for plan in plans) else 0)


@storage.command()
@tables_argument
@click.option("-y", "--yes", is_flag=True, help="Make the changes without asking.")
def apply(names: tuple[str, ...], yes: bool) -> None:
    """Give the tables the retention that topics.yaml declares.

    Shows the plan and asks for confirmation; without a terminal, --yes is required. The server moves and deletes days
    afterwards, by itself: `chimera storage plan` shows what is left. A second run changes nothing. Workers may go on.

    \b
    Exit codes:
      0   the tables are as declared
      1   not confirmed, or a replay or repair of a table is under way
      2   there are changes, but neither a terminal nor --yes
      69  ClickHouse doesn't answer
      70  ClickHouse refuses, a table is missing, or the policy lacks a volume
      78  a setting or topics.yaml is wrong

    \b
    Examples:
      chimera storage apply
      chimera storage apply ui_events --yes
    """
    with opened(names) as (settings, tables, client):
        plans = make_plans(settings.clickhouse, client, tables)
        _print(plans, settings.clickhouse.address)
        if any(plan.statements for plan in plans):
            confirm(yes)
            for plan in plans:
                apply_plan(settings.clickhouse, client, plan)
            click.echo("Done. The server moves and deletes days by itself from now on.", err=True)


def _print(plans: tuple[RetentionPlan, ...], address: str) -> None:
    for plan in plans:
        click.echo(f"{'~' if plan.statements else '='} {plan.table}")
        if not plan.declared:
            click.echo("    no retention: topics.yaml has no `rows` for it, so its rows stay for ever")
        if plan.rule != plan.old_rule:
            click.echo(f"    rule     {plan.old_rule or 'none'}\n          →  {plan.rule}")
        for statement in plan.statements:
            if " TTL " not in statement:
                click.echo(f"    change   {statement.partition(' MODIFY ')[2]}")
        for tier, amount in plan.tiers.items():
            if plan.tiered or amount.days:
                click.echo(f"    {tier:8} {amount_text(amount)}")
        for tier, amount in plan.moves.items():
            click.echo(f"    moves    to {tier}: {amount_text(amount)}")
        if plan.deletes.days:
            click.echo(f"    DELETES  {amount_text(plan.deletes)}")
    changed = sum(bool(plan.statements) for plan in plans)
    untiered = "" if all(plan.tiered for plan in plans) else "; no volumes warm and cold: days are only deleted"
    click.echo(f"{changed} to change, {len(plans) - changed} as declared; ClickHouse at {address}{untiered}")


def _facts(plan: RetentionPlan) -> dict[str, Any]:
    return {
        "table": plan.table,
        "declared": plan.declared,
        "tiered": plan.tiered,
        "old_rule": plan.old_rule,
        "rule": plan.rule,
        "statements": plan.statements,
        "tiers": {tier: amount_facts(amount) for tier, amount in plan.tiers.items()},
        "moves": {tier: amount_facts(amount) for tier, amount in plan.moves.items()},
        "deletes": amount_facts(plan.deletes),
    }
