"""Rules of a table's TTL, read from the definition that ClickHouse gives."""

import pytest

from pipeline.clickhouse.ttl import _deleting_rules

_ENGINE = "MergeTree PARTITION BY toDate(ts) ORDER BY (ts, run_id)"
_DAYS = "toDateTime(ts) + toIntervalDay(30)"
_YEAR = "ts + toIntervalYear(1)"


@pytest.mark.parametrize(
    ("clause", "rules"),
    [
        pytest.param("", [], id="none"),
        pytest.param(f" TTL {_DAYS}", [_DAYS], id="one"),
        pytest.param(f" TTL {_DAYS}, {_YEAR}", [_DAYS, _YEAR], id="two"),
        pytest.param(f" TTL {_DAYS} TO DISK 'a, b', {_YEAR}", [_YEAR], id="move"),
        pytest.param(f" TTL {_DAYS} RECOMPRESS CODEC(ZSTD(3)), {_YEAR} TO VOLUME 'x'", [], id="only moves"),
        pytest.param(f" TTL {_DAYS} WHERE status = 'a, SETTINGS \\'b', {_YEAR}", [_DAYS, _YEAR], id="condition"),
        pytest.param(f" TTL {_DAYS} WHERE status IN ('a', ')'), {_YEAR}", [_DAYS, _YEAR], id="list"),
        pytest.param(f" TTL {_DAYS} GROUP BY ts, run_id", [_DAYS], id="keys"),
        pytest.param(
            f" TTL {_DAYS} GROUP BY ts, run_id SET a = max(a), `b, c` = min(d), {_YEAR}",
            [_DAYS, _YEAR],
            id="assignments",
        ),
    ],
)
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param("", id="no settings"),
        pytest.param(" SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1", id="settings"),
        pytest.param(" SETTINGS index_granularity = 8192, storage_policy = 'hot, TTL (cold'", id="storage policy"),
    ],
)
def test_each_rule_that_deletes_rows_is_found(clause: str, settings: str, rules: list[str]) -> None:
    """Moves, conditions, keys, assignments and the table's settings are no rules."""
    assert [rule for rule, _ in _deleting_rules(f"{_ENGINE}{clause}{settings}")] == rules


def test_a_rule_with_a_condition_is_told_from_one_without() -> None:
    """The table may keep rows that are older; a value that reads like a condition is none."""
    clause = f" TTL {_DAYS} WHERE status = 'a', {_YEAR}, toDate(' WHERE ') + {_DAYS} DELETE, {_DAYS} DELETE WHERE a > 1"
    assert [conditional for _, conditional in _deleting_rules(_ENGINE + clause)] == [True, False, False, True]
