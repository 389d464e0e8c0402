"""States of the pipeline as the monitor may see them, for its page and its metrics."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pipeline.operations.monitor.state import (
    VERSION,
    BackupState,
    Consumption,
    DiskState,
    Event,
    FamilyState,
    GroupState,
    Health,
    History,
    MemberState,
    PartitionState,
    PipelineState,
    RollupState,
    ServerState,
    StorageState,
    TableState,
    Trouble,
    UnsettledLetters,
)

NOW = datetime(2026, 11, 29, 12, 34, 56, tzinfo=UTC)
RATES = {
    "bench_runs": 3.4,
    "llm_events": 812.0,
    "ui_events": 21_734.0,
    "watcher_runs": 41.0,
    "episodes": 187.0,
    "deployments": 0.0,
}
_WORKERS = ("10.4.0.17#8e1c", "10.4.0.22#0bd4", "10.4.0.31#77fa")


def busy() -> PipelineState:
    """Three workers, all families flow, a little lag and a few dead letters."""
    families = tuple(_family(name, rate) for name, rate in RATES.items())
    return PipelineState(
        version=VERSION,
        at=NOW,
        started_at=NOW - timedelta(hours=7),
        verdict=Health.OK,
        summary="All is well",
        kafka=ServerState(Health.OK, "kafka-1.example:9093", NOW - timedelta(hours=7), NOW, None),
        clickhouse=ServerState(Health.OK, "clickhouse.example:9440", NOW - timedelta(hours=7), NOW, None),
        dead_letters=ServerState(Health.OK, "kafka-1.example:9093", NOW - timedelta(hours=7), NOW, None),
        group=GroupState("chimera", "stable", tuple(_member(each) for each in _WORKERS)),
        families=families,
        tables=(*(_table(name, rate) for name, rate in RATES.items()), _table("session_stats", 2.0)),
        rollup=RollupState(18_204, 311, NOW - timedelta(minutes=10), NOW.replace(minute=0, second=0), NOW, 21.0),
        storage=StorageState("26.9.2.1", 1_234_567, 3, (DiskState("default", 812 * 2**30, 1862 * 2**30),), {}, 0),
        backup=BackupState(
            verdict=Health.OK,
            at=NOW - timedelta(minutes=41),
            name="chimera_metrics-20261129T115356Z-incremental-9c1e",
            age_seconds=2460.0,
            too_old=False,
            last_failed=False,
            verified_at=NOW - timedelta(hours=9),
            looked_at=NOW - timedelta(seconds=20),
            reason=None,
        ),
        troubles=(),
        events=(
            Event(NOW - timedelta(minutes=12), "rebalance", "12 partitions have another owner"),
            Event(NOW - timedelta(minutes=12), "worker", "a worker at 10.4.0.31 joined the group; now 3"),
        ),
        history=History(
            30.0,
            {name: tuple(_wave(rate, at) for at in range(120)) for name, rate in RATES.items()},
            {name: tuple(_wave(rate / 3, at + 31) for at in range(120)) for name, rate in RATES.items()},
        ),
    )


def quiet() -> PipelineState:
    """Nothing comes in, and nothing waits."""
    state = busy()
    families = tuple(
        replace(
            each,
            produced_per_second=0.0,
            consumed_per_second=0.0,
            lag_records=0,
            lag_seconds=0.0,
            partitions=tuple(
                replace(part, lag_records=0, lag_seconds=0.0, committed=part.end) for part in each.partitions
            ),
            dead_letters=replace(each.dead_letters, unsettled=0, reasons={}, oldest_seconds=None),
        )
        for each in state.families
    )
    still = dict.fromkeys(RATES, (0.0,) * 120)
    state = replace(state, families=families, history=History(30.0, still, still), events=())
    return _stored(state, 2400.0)


def clickhouse_away() -> PipelineState:
    """ClickHouse doesn't answer for 34 s; workers hold their partitions, and the lag grows."""
    reason = "ClickHouse at clickhouse.example:9440 is not available: Connection refused"
    server = ServerState(
        Health.CRITICAL, "clickhouse.example:9440", NOW - timedelta(seconds=34), NOW - timedelta(seconds=38), reason
    )
    action = "Bring ClickHouse back; workers repeat their inserts, and nothing is lost until Kafka's retention ends."
    away = Trouble("clickhouse-away", Health.CRITICAL, "ClickHouse", reason, action, NOW - timedelta(seconds=34))
    state = _lagging(busy(), Consumption.STALLED, seconds=34.0)
    refused = "ClickHouse clickhouse.example:9440: Connection refused, 34 s, attempt 7"
    waiting = tuple(replace(_member(each), ready=False, says=f"ui_events: {refused}") for each in _WORKERS)
    state = replace(state, group=replace(state.group, members=waiting))
    stalled = Trouble(
        "stalled",
        Health.CRITICAL,
        "ui_events",
        "8 partitions don't move; 738,956 records wait",
        "Look at the workers' reason: on the page, or at /ready.",
        NOW - timedelta(seconds=4),
    )
    return _troubled(replace(state, clickhouse=server), away, stalled)


def kafka_away() -> PipelineState:
    """Kafka doesn't answer."""
    reason = (
        "Kafka at kafka-1.example:9093 is not available: Local: All broker connections are down (_ALL_BROKERS_DOWN)"
    )
    server = ServerState(
        Health.CRITICAL, "kafka-1.example:9093", NOW - timedelta(minutes=3), NOW - timedelta(seconds=184), reason
    )
    action = "Bring Kafka back; workers go on where they were."
    trouble = Trouble("kafka-away", Health.CRITICAL, "Kafka", reason, action, NOW - timedelta(minutes=3))
    return _troubled(replace(busy(), kafka=server), trouble)


def no_worker() -> PipelineState:
    """No worker runs, and records wait."""
    state = _lagging(busy(), Consumption.STOPPED, seconds=432.0)
    waiting = sum(family.lag_records or 0 for family in state.families)
    text = f"no worker runs; {waiting:,} records wait"
    trouble = Trouble(
        "no-worker", Health.CRITICAL, "group chimera", text, "Start a worker.", NOW - timedelta(minutes=7)
    )
    return _troubled(replace(state, group=GroupState("chimera", "empty", ())), trouble)


def halted() -> PipelineState:
    """One of three workers has halted; the others have its partitions."""
    state = busy()
    why = "ClickHouse at clickhouse.example:9440: chimera_writer has no right to INSERT ON chimera_metrics.ui_events"
    action = "Mend what it names, then start it again; going on by itself would do harm."
    at = NOW - timedelta(seconds=48)
    trouble = Trouble("worker-halted", Health.CRITICAL, "worker at 10.4.0.31:6066", f"it has halted: {why}", action, at)
    left = tuple(replace(_member(each), partitions=14) for each in _WORKERS[:2])
    families = tuple(
        replace(
            family,
            partitions=tuple(replace(part, owner=_WORKERS[part.partition % 2]) for part in family.partitions),
        )
        for family in state.families
    )
    troubled = _troubled(replace(state, families=families, group=replace(state.group, members=left)), trouble)
    events = (
        Event(NOW - timedelta(seconds=42), "rebalance", "9 partitions have another owner"),
        Event(at, "worker", "a worker at 10.4.0.31 left the group; 2 left"),
        Event(at, "halt", f"the worker at 10.4.0.31:6066 has halted: {why}"),
    )
    return replace(troubled, events=(*events, *state.events))


def _member(name: str) -> MemberState:
    return MemberState(name, "faust", name[:9], 9, ready=True)


def many_dead_letters() -> PipelineState:
    """A producer sends what can't be read; the oldest dead letter is over a day old."""
    state = busy()
    reasons = {"unknown_schema": 48_211, "out_of_bounds": 1204, "truncated": 96, "invalid_utf8": 12}
    letters = UnsettledLetters("chimera.llm_events.dlq", sum(reasons.values()), reasons, 94_000.0, 0)
    families = tuple(
        replace(each, dead_letters=letters) if each.name == "llm_events" else each for each in state.families
    )
    text = "49,523 dead letters wait for a person: 48,211 unknown_schema, 1,204 out_of_bounds, 96 truncated"
    action = "Look at them with `chimera dlq show --topic llm_events`, then requeue or drop them."
    trouble = Trouble("dead-letters", Health.WARNING, "llm_events", text, action, NOW - timedelta(hours=2))
    return _troubled(replace(state, families=families), trouble)


STATES: dict[str, Callable[[], PipelineState]] = {
    "quiet": quiet,
    "busy": busy,
    "clickhouse-away": clickhouse_away,
    "kafka-away": kafka_away,
    "no-worker": no_worker,
    "halted": halted,
    "many-dead-letters": many_dead_letters,
}


def _troubled(state: PipelineState, *troubles: Trouble) -> PipelineState:
    worst = troubles[0]
    more = f", and {len(troubles) - 1} more" if troubles[1:] else ""
    where = "" if worst.text.startswith(worst.where) else f"{worst.where}: "
    summary = f"{where}{worst.text}{more}"
    events = (Event(worst.since, "away", worst.text), *state.events)
    return replace(state, verdict=worst.severity, summary=summary, troubles=troubles, events=events)


def _lagging(state: PipelineState, consumption: Consumption, *, seconds: float) -> PipelineState:
    """Every family that gets records has not been consumed for this time."""
    owned = consumption is Consumption.STALLED

    def late(family: FamilyState) -> FamilyState:
        if not family.produced_per_second:
            parts = tuple(replace(part, owner=part.owner if owned else None) for part in family.partitions)
            return replace(family, unowned=0 if owned else len(parts), partitions=parts)
        each = round(family.produced_per_second * seconds / len(family.partitions)) + 1
        partitions = tuple(
            replace(
                part,
                lag_records=each,
                lag_seconds=seconds,
                consumption=consumption,
                committed=(part.end or 0) - each,
                owner=part.owner if owned else None,
            )
            for part in family.partitions
        )
        return replace(
            family,
            consumed_per_second=0.0,
            lag_records=each * len(partitions),
            lag_seconds=seconds,
            consumption=consumption,
            unowned=0 if owned else len(partitions),
            retention_left_seconds=604_800 - seconds,
            partitions=partitions,
        )

    step = max(1, round(seconds / 30))
    rates, lags = ({name: list(values) for name, values in each.items()} for each in _histories(state))
    for name, rate in RATES.items():
        for at in range(1, step + 1):
            rates[name][-at] = 0.0
            lags[name][-at] = rate * 30 * (step - at + 1)
    history = History(30.0, {n: tuple(v) for n, v in rates.items()}, {n: tuple(v) for n, v in lags.items()})
    return _stored(replace(state, families=tuple(map(late, state.families)), history=history), seconds + 2)


def _stored(state: PipelineState, seconds: float) -> PipelineState:
    """Nothing has been stored for this time."""
    at = NOW - timedelta(seconds=seconds)
    tables = (replace(each, newest_stored=min(each.newest_stored or at, at)) for each in state.tables)
    return replace(state, tables=tuple(tables))


def _histories(state: PipelineState) -> tuple[dict[str, list[float | None]], ...]:
    history = state.history
    return tuple(
        {name: list(values) for name, values in each.items()}
        for each in (history.consumed_per_second, history.lag_records)
    )


def _wave(rate: float, at: int) -> float:
    return rate * (1 + 0.25 * math.sin(at / 9) + 0.15 * math.sin(at / 2.3 + rate))


def _family(name: str, rate: float) -> FamilyState:
    count = 8 if name == "ui_events" else 4
    lag = round(rate / 4 / count)
    end = round(rate * 90_000) + 1
    partitions = tuple(
        PartitionState(
            partition=number,
            begin=0,
            end=end,
            committed=end - lag,
            lag_records=lag,
            lag_seconds=0.6 if lag else 0.0,
            consumption=Consumption.OK,
            owner=_WORKERS[number % len(_WORKERS)],
            lost_records=0,
            retention_left_seconds=604_799.4 if lag else None,
        )
        for number in range(count)
    )
    return FamilyState(
        name=name,
        topic=f"chimera.{name}",
        table=name,
        missing=False,
        produced_per_second=rate,
        consumed_per_second=rate,
        rejected_ratio=0.0,
        lag_records=lag * count,
        lag_seconds=0.6 if lag else 0.0,
        consumption=Consumption.OK,
        uncommitted=0,
        unowned=0,
        leaderless=(),
        lost_records=0,
        retention_left_seconds=604_799.4 if lag else None,
        partitions=partitions,
        dead_letters=_letters(name, {"truncated": 7, "out_of_bounds": 2} if name == "llm_events" else {}),
    )


def _letters(name: str, reasons: dict[str, int]) -> UnsettledLetters:
    return UnsettledLetters(f"chimera.{name}.dlq", sum(reasons.values()), reasons, 5400.0 if reasons else None, 0)


def _table(name: str, rate: float) -> TableState:
    stored = NOW - timedelta(seconds=2 if rate else 86_000)
    rows = round(rate * 720_000) + 12
    return TableState(
        name, False, rows, round(rate * 3600), 3600.0, stored, stored, rows * 18, 12 + round(rate) % 40, 9
    )
