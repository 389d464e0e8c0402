"""Retention: days of a table move to slower volumes and are deleted, as topics.yaml declares it.

The rule is a TTL by the day of the time column. So all rows of a partition are over at the same moment, the server
drops it as a whole (`ttl_only_drop_parts`), and ingest, replay, verify and rollup, which ask `pipeline.clickhouse.ttl`,
agree with it about every row. Without a policy that has the volumes, the rule only deletes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.catalog import RowRetention
from pipeline.clickhouse.deduplication import is_replicated
from pipeline.clickhouse.replicas import execute_everywhere, for_cluster
from pipeline.clickhouse.table_lock import TableLock
from pipeline.clickhouse.ttl import ttl_clause
from pipeline.clickhouse.volumes import COLD, VOLUMES, WARM
from pipeline.config import ClickHouseSettings, env_name
from pipeline.errors import ConfigError, HaltError
from pipeline.operations.storage.tables import (
    HOT,
    TIERS,
    Amount,
    Day,
    LiveTable,
    StoredTable,
    live_tables,
    read_days,
    volumes,
)

# Whole parts are dropped, and a new rule is worked out from the time column alone instead of rewriting all parts.
_SETTINGS = ("ttl_only_drop_parts = 1", "materialize_ttl_recalculate_only = 1")

Policy = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """Changes that make the server keep a table's retention, and their effects."""

    table: str
    declared: bool
    tiered: bool
    """True if days move; else they are only deleted."""
    old_rule: str
    rule: str
    statements: tuple[str, ...]
    """Changes of the table; without any, it is as declared."""
    moves: Mapping[str, Amount] = field(default_factory=dict)
    """Days that are on another tier than their age says, by the tier that they move to."""
    deletes: Amount = field(default_factory=lambda: Amount.of(()))
    """Days that are over; the server deletes them."""
    tiers: Mapping[str, Amount] = field(default_factory=dict)
    """Days by the tier that they are on."""


def rule_of(table: StoredTable, retention: RowRetention, *, tiered: bool) -> str:
    """Return the TTL of a table, as the server writes it."""
    day = f"toDate({table.time}) + toIntervalDay"
    ages = {WARM: retention.warm_after_days, COLD: retention.cold_after_days}
    moves = [f"{day}({age}) TO VOLUME '{volume}'" for volume, age in ages.items()] if tiered else []
    return ", ".join([*moves, f"{day}({retention.delete_after_days})"])


def make_plans(settings: ClickHouseSettings, client: Any, tables: tuple[StoredTable, ...]) -> tuple[RetentionPlan, ...]:
    """Compare tables with their declared retention; changes nothing.

    Args:
        settings: server, database and name of the policy with the volumes.
        client: connected, with the tables' database as default.
        tables: as topics.yaml declares them.

    Raises:
        HaltError: a table is missing, or the policy lacks a volume.
        clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    live, policies = live_tables(settings, client, tables), volumes(client)
    return tuple(_plan(settings, client, table, live[table.name], policies) for table in tables)


def _plan(
    settings: ClickHouseSettings, client: Any, table: StoredTable, live: LiveTable, policies: Mapping[str, Policy]
) -> RetentionPlan:
    policy = _policy(settings, live, policies)
    tiered = policy is not None
    days = read_days(client, table.name, policies.get(policy or live.policy, {}))
    by_tier = {tier: Amount.of(day for day in days if day.tier == tier) for tier in TIERS}
    old_rule = ttl_clause(live.definition)
    if table.retention is None:
        return RetentionPlan(
            table.name, declared=False, tiered=tiered, old_rule=old_rule, rule=old_rule, statements=(), tiers=by_tier
        )
    rule = rule_of(table, table.retention, tiered=tiered)
    over = [day for day in days if day.age >= table.retention.delete_after_days]
    kept = [day for day in days if day not in over]
    moves = {
        tier: Amount.of(day for day in kept if day.tier != tier and tier_of(table.retention, day) == tier)
        for tier in (VOLUMES if tiered else ())
    }
    return RetentionPlan(
        table.name,
        declared=True,
        tiered=tiered,
        old_rule=old_rule,
        rule=rule,
        statements=_statements(table.name, live, policy, rule if rule != old_rule else None),
        moves={tier: amount for tier, amount in moves.items() if amount.days},
        deletes=Amount.of(over),
        tiers=by_tier,
    )


def tier_of(retention: RowRetention, day: Day) -> str:
    """Return the tier on which a day belongs for its age."""
    if day.age >= retention.cold_after_days:
        return COLD
    return WARM if day.age >= retention.warm_after_days else HOT


def _policy(settings: ClickHouseSettings, live: LiveTable, policies: Mapping[str, Policy]) -> str | None:
    """Return the policy that the table is to have; None if the server has none with the volumes."""
    if all(volume in policies.get(live.policy, {}) for volume in VOLUMES):
        return live.policy
    wanted = policies.get(settings.storage_policy)
    if wanted is None:
        return None
    if missing := [volume for volume in VOLUMES if volume not in wanted]:
        raise HaltError(
            f"storage policy {settings.storage_policy} of ClickHouse at {settings.address}: no volume {missing[0]}; "
            f"expected the volumes {', '.join(VOLUMES)} after its first one, or no such policy"
        )
    return settings.storage_policy


def _statements(table: str, live: LiveTable, policy: str | None, rule: str | None) -> tuple[str, ...]:
    alter = f"ALTER TABLE `{table}` MODIFY"
    changes = [f"SETTING storage_policy = '{policy}'"] if policy and policy != live.policy else []
    missing = [setting for setting in _SETTINGS if setting not in live.definition]
    changes += [f"SETTING {', '.join(missing)}"] if missing else []
    changes += [f"TTL {rule}"] if rule else []
    return tuple(f"{alter} {change}" for change in changes)


def apply_plan(settings: ClickHouseSettings, client: Any, plan: RetentionPlan) -> None:
    """Make the changes of a plan; the server moves and deletes days afterwards, by itself. May be repeated.

    On a cluster, all servers get the settings first: a replica whose policy lacks a volume of the rule gets stuck.

    Args:
        settings: server and database.
        client: connected, with the table's database as default.
        plan: of one table.

    Raises:
        ConfigError: the table is replicated, its rule names volumes, and no cluster is configured.
        TakenError: a replay or a repair of the table is under way; its staging table must be like the table.
        UnavailableError: a server of the cluster is away; the rule is as it was.
        clickhouse_driver.errors.Error, OSError, EOFError: the server refuses a change; earlier ones are made.
    """
    if not plan.statements:
        return
    everywhere = is_replicated(client, plan.table)
    if everywhere and not settings.cluster and any(" TO VOLUME " in statement for statement in plan.statements):
        raise ConfigError(
            f"{env_name('clickhouse', 'cluster')}: expected the cluster of table {plan.table}, which is replicated: "
            "each of its servers needs the storage policy before the rule that names its volumes"
        )
    with TableLock(settings, plan.table):
        for statement in plan.statements:
            cluster = settings.cluster if everywhere else None
            execute_everywhere(client, for_cluster(statement, prefix="", cluster=cluster))
