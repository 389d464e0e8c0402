"""The queries of the specification run unchanged and give the right answers for known rows."""

import re
import secrets
import statistics
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from clickhouse_driver import Client
from clickhouse_driver import errors as driver_errors
from support.containers import ContainerStack

from pipeline.clickhouse.client import connect
from pipeline.clickhouse.migrate import migrate
from pipeline.clickhouse.queries import load_queries
from pipeline.config import ClickHouseSettings
from pipeline.devstack import Stack

pytestmark = pytest.mark.integration

_QUERIES = load_queries()
_DOCUMENT = Path(__file__).parents[2] / "docs" / "queries.md"
_NOW = datetime.now(UTC).replace(microsecond=0)
_RUN, _DEPLOYMENT, _SESSION = uuid4(), uuid4(), uuid4()


def _at(days_ago: int, second: int = 0) -> datetime:
    return _NOW - timedelta(days=days_ago, hours=1) + timedelta(seconds=second)


_ROWS: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "bench_runs": (
        "ts, run_id, model, quant, latency_p95_ms, tokens_per_sec, cost_per_1k",
        [
            (_at(0), uuid4(), "llama-7b", "fp16", 100, 50, Decimal("0.002")),
            (_at(1), uuid4(), "llama-7b", "fp16", 200, 25, Decimal("0.002")),
            (_at(2), uuid4(), "llama-7b", "int8", 300, 12.5, Decimal("0.001")),
            (_at(20), uuid4(), "mistral-7b", "int8", 900, 6.25, Decimal("0.001")),
        ],
    ),
    "llm_events": (
        "ts, source, model, operation, tokens_in, tokens_out, latency_ms, cost_usd, status",
        [
            (_at(0), "banterhearts", "gpt-4", "generate", 100, 50, 100, Decimal("0.01"), "success"),
            (_at(0), "council", "gpt-4", "generate", 300, 150, 300, Decimal("0.02"), "failure"),
            (_at(1), "council", "claude-3", "analyze", 10, 5, 10, Decimal("0.005"), "success"),
            (_at(10), "council", "claude-3", "analyze", 10, 5, 10, Decimal(9), "failure"),
        ],
    ),
    "ui_events": (
        "ts, session_id, event_type, latency_ms, user_agent",
        [
            *((_at(0, second), _SESSION, "overlay_open", 10, "Chrome/139") for second in range(6)),
            *((_at(0, second), _SESSION, "query_submit", 10, "Chrome/139") for second in range(6, 11)),
            (_at(0), uuid4(), "error", 40, "Firefox/141"),
        ],
    ),
    "session_stats": (
        "hour, avg_latency_ms, error_rate, abandonment_rate, events_count",
        [(_at(0), 10, 0, 0.5, 8), (_at(1), 25, 0, 0.5, 8), (_at(2), 30, 0.25, 0.5, 8)],
    ),
    "watcher_runs": (
        "ts, run_id, hearts_rows_found, packs_rows_found, lag_seconds, status",
        [(_at(0), _RUN, 10, 20, 5, "valid"), (_at(1), uuid4(), 10, 20, 900, "degraded")],
    ),
    "episodes": (
        "ts, run_id, series, confidence_score, correlation_strength, cost_total",
        [
            (_at(0), _RUN, "chimera", 0.75, 0.375, Decimal("0.5")),
            (_at(1), uuid4(), "banterpacks", 0.5, 0.25, Decimal("0.25")),
        ],
    ),
    "deployments": (
        "ts, run_id, episode_run_id, status, duration_ms",
        [(_at(0), _DEPLOYMENT, _RUN, "ready", 1000), (_at(1), uuid4(), uuid4(), "error", 3000)],
    ),
}
_DAY = [_at(days).date() for days in range(21)]
_CORRELATION = statistics.correlation([100, 200, 300], [10, 25, 30])

# Compared columns of a result; without an entry, all of them.
_COMPARED = {
    "bench_runs_latest": slice(7, 8),
    "session_stats_hourly": slice(1, None),
    "watcher_runs_freshness": slice(1, None),
}
_ANSWERS: dict[str, list[tuple[Any, ...]]] = {
    "bench_runs_latest": [(100,), (200,), (300,)],
    "bench_runs_trend": [
        (_DAY[20], 900, 6.25),
        (_DAY[2], 300, 12.5),
        (_DAY[1], 200, 25),
        (_DAY[0], 100, 50),
    ],
    "bench_runs_models": [("llama-7b", "fp16", 150, 0.002), ("llama-7b", "int8", 300, 0.001)],
    "llm_events_cost": [("gpt-4", 400, 200, Decimal("0.03"), 2), ("claude-3", 10, 5, Decimal("0.005"), 1)],
    "llm_events_operations": [("generate", 200, 290, 2)],
    "llm_events_error_rate": [("council", "gpt-4", 1, 1, 1)],
    "ui_events_engagement": [("overlay_open", 6, 1, 10), ("query_submit", 5, 1, 10), ("error", 1, 1, 40)],
    "ui_events_sessions": [(_SESSION, _at(0), _at(0, 10), 11, 2)],
    "ui_events_user_agents": [("Chrome/139", 11, 10, 10), ("Firefox/141", 1, 40, 40)],
    "session_stats_hourly": [(30, 0.25, 8), (25, 0, 8), (10, 0, 8)],
    "session_stats_daily": [(_DAY[2], 0.25, 0.5, 1), (_DAY[1], 0, 0.5, 1), (_DAY[0], 0, 0.5, 1)],
    "watcher_runs_freshness": [(10, 20, 5, "valid")],
    "watcher_runs_health": [(_DAY[1], 0, 1, 0, 900), (_DAY[0], 1, 0, 0, 5)],
    "episodes_trend": [
        ("banterpacks", _DAY[1], 1, 0.5, Decimal("0.25")),
        ("chimera", _DAY[0], 1, 0.75, Decimal("0.5")),
    ],
    "episodes_quality": [("chimera", 0.75, 0.375, 0, 1), ("banterpacks", 0.5, 0.25, 1, 1)],
    "deployments_success": [(_DAY[1], 0, 1, 1, 0), (_DAY[0], 1, 0, 1, 1)],
    "deployments_performance": [(1000, 1000, 1)],
    "agent_runs": [(_RUN, _RUN, _DEPLOYMENT, "valid", 0.75, "ready")],
    "performance_user_correlation_corrected": [
        (_DAY[2], 300, 0.001, 30, 0.25, _CORRELATION),
        (_DAY[1], 200, 0.002, 25, 0, _CORRELATION),
        (_DAY[0], 100, 0.002, 10, 0, _CORRELATION),
    ],
    "costs": [("Episode Generation", Decimal("0.75"), 2), ("LLM Operations", Decimal("0.035"), 3)],
}


@pytest.fixture(scope="module")
def client(stack: Stack | ContainerStack) -> Iterator[Client]:
    """Client of a migrated database with the known rows."""
    settings = ClickHouseSettings(port=stack.clickhouse.port, database=f"test_queries_{secrets.token_hex(4)}")
    migrate(settings)
    with connect(settings) as client:
        for table, (columns, rows) in _ROWS.items():
            client.execute(f"INSERT INTO {table} ({columns}) VALUES", rows)
        yield client
        client.execute(f"DROP DATABASE {settings.database} SYNC")


@pytest.mark.parametrize("name", [query.name for query in _QUERIES.values() if query.refused is None])
def test_a_specified_query_gives_the_right_answer(client: Client, name: str) -> None:
    """Values, order and time window of the answer follow from the known rows."""
    rows = client.execute(_QUERIES[name].sql)
    if name == "costs":  # the parts of a UNION ALL come in any order
        rows.sort()
    compared = _COMPARED.get(name, slice(None))
    assert [tuple(map(_comparable, row[compared])) for row in rows] == [
        tuple(map(_comparable, row)) for row in _ANSWERS[name]
    ]


def _comparable(value: Any) -> Any:
    return round(float(value), 9) if isinstance(value, int | float | Decimal) else value


@pytest.mark.parametrize("name", [query.name for query in _QUERIES.values() if query.refused is not None])
def test_a_refused_query_is_documented_with_code_and_corrected_form(client: Client, name: str) -> None:
    """ClickHouse refuses the query with the code in docs/queries.md, which also has the corrected form."""
    query, corrected = _QUERIES[name], _QUERIES[f"{name}_corrected"]
    with pytest.raises(driver_errors.ServerException) as refusal:
        client.execute(query.sql)
    assert refusal.value.code == query.refused
    document = _DOCUMENT.read_text(encoding="utf-8")
    assert f"`{name}`" in document
    assert f"code {query.refused}" in document
    assert corrected.sql in document


def test_the_documented_query_reads_each_benchmark_run_once(stack: Stack | ContainerStack) -> None:
    """A run that was reported on two days keeps two rows, which no merge collapses; the query gives the later one."""
    query = re.search(r"```sql\n(SELECT model, .*?LIMIT 1 BY .*?)```", _DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert query is not None
    settings = ClickHouseSettings(port=stack.clickhouse.port, database=f"test_queries_{secrets.token_hex(4)}")
    migrate(settings)
    with connect(settings) as client:
        columns = "ts, run_id, model, quant, dataset, latency_p95_ms"
        reports = [(_at(days), _RUN, "llama-7b", "fp16", "d", days) for days in (1, 0, 1)]
        client.execute(f"INSERT INTO bench_runs ({columns}) VALUES", [*reports, (_at(2), uuid4(), "m", "q", "d", 2)])
        client.execute("OPTIMIZE TABLE bench_runs FINAL")
        assert client.execute("SELECT count() FROM bench_runs WHERE run_id = %(run)s", {"run": _RUN}) == [(2,)]
        assert {row[-1] for row in client.execute(query[1])} == {0, 2}
        assert {row[0] for row in client.execute("SELECT latency_p95_ms FROM bench_runs FINAL")} == {0, 2}
        client.execute(f"DROP DATABASE {settings.database} SYNC")
