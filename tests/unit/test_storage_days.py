"""Retention, tiers and days, without a server."""

from datetime import date

import pytest

from pipeline.catalog import RowRetention
from pipeline.cli.storage.group import amount_text, size_text
from pipeline.clickhouse.ttl import _deleting_rules, ttl_clause
from pipeline.operations.storage.partitions import chosen_days
from pipeline.operations.storage.retention import rule_of, tier_of
from pipeline.operations.storage.tables import Amount, Day, StoredTable

_RETENTION = RowRetention(warm_after_days=90, cold_after_days=365, delete_after_days=1095)
_TABLE = StoredTable("ui_events", "ts", _RETENTION)


def _day(day: str, age: int = 0, tier: str = "hot") -> Day:
    return Day(day, day.replace("-", ""), tier, 1000, 2048, 1, age, ("LZ4",))


@pytest.mark.parametrize("tiered", [True, False])
def test_of_a_retention_only_the_last_rule_deletes(*, tiered: bool) -> None:
    """Ingest, replay, verify and rollup take rows for expired by that one alone; moves count as nothing."""
    rule = rule_of(_TABLE, _RETENTION, tiered=tiered)
    definition = f"MergeTree PARTITION BY toDate(ts) ORDER BY ts TTL {rule} SETTINGS storage_policy = 'tiered'"
    assert ttl_clause(definition) == rule
    assert list(_deleting_rules(definition)) == [("toDate(ts) + toIntervalDay(1095)", False)]
    assert ("VOLUME" in rule) is tiered


@pytest.mark.parametrize(
    ("age", "tier"), [(-1, "hot"), (89, "hot"), (90, "warm"), (364, "warm"), (365, "cold"), (2000, "cold")]
)
def test_a_day_belongs_to_the_tier_of_its_age(age: int, tier: str) -> None:
    """A day moves on the first day of its next age."""
    assert tier_of(_RETENTION, _day("2026-01-01", age)) == tier


def test_days_are_chosen_by_span_or_by_name() -> None:
    """Both ends of a span are included, and either may be open."""
    days = [_day(f"2026-01-0{number}") for number in range(1, 6)]
    bounds = (date(2026, 1, 2), date(2026, 1, 4))
    assert [day.day for day in chosen_days(days, begin=bounds[0], end=bounds[1])] == [day.day for day in days[1:4]]
    assert chosen_days(days, begin=bounds[1], end=None) == days[3:]
    assert chosen_days(days, begin=None, end=bounds[0]) == days[:2]
    assert chosen_days(days, begin=None, end=None, only=[bounds[1]]) == [days[3]]


def test_amounts_are_readable() -> None:
    """A day on two tiers counts once; sizes have a unit."""
    assert amount_text(Amount.of(())) == "nothing"
    assert amount_text(Amount.of([_day("2026-01-01")])) == "1 day, 1,000 rows, 2.0 KiB (2026-01-01)"
    both = Amount.of([_day("2026-01-02"), _day("2026-01-02", tier="cold"), _day("2026-01-01")])
    assert amount_text(both) == "2 days, 3,000 rows, 6.0 KiB (2026-01-01 to 2026-01-02)"
    assert [size_text(1024**power) for power in range(5)] == ["1 B", "1.0 KiB", "1.0 MiB", "1.0 GiB", "1.0 TiB"]
