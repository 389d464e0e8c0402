"""`chimera rollup verify` and `repair` on a real ClickHouse, and what they take from a real broker's snapshots."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import orjson
import pytest
from click.testing import CliRunner, Result
from clickhouse_driver import Client
from confluent_kafka import Consumer, KafkaException, TopicPartition
from pydantic import SecretStr
from support.events import publish
from support.processes import eventually, prepare

from pipeline.catalog import Catalog
from pipeline.cli.rollup import rollup as command
from pipeline.clickhouse.access import Limit
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.migrate import migrate
from pipeline.config import ClickHouseSettings, Settings
from pipeline.devstack.clickhouse import ClickHouseServer, ClickHouseUser
from pipeline.errors import HaltError, UnavailableError
from pipeline.kafka.client import client_config
from pipeline.kafka.topics import TopicAdmin
from pipeline.rollup import horizon as horizon_module
from pipeline.rollup import repair as repair_module
from pipeline.rollup.audit import Audit, Hour, Kind
from pipeline.rollup.horizon import Horizon, read_horizon
from pipeline.rollup.partition import Events, PartitionWindows
from pipeline.rollup.repair import OvertakenError, Plan, RefusedError, plan, repair
from pipeline.rollup.snapshot import Snapshot
from pipeline.rollup.store import SnapshotStore
from pipeline.rollup.verify import Report, verify

pytestmark = pytest.mark.integration

_HOUR_MS = 3_600_000
_DAY = date(2026, 1, 31)
_NOON = 491_628  # hours from 1970 to noon of that day
_HUGE = 2**32 - 1
_ALL_CLOSED = Horizon(float("inf"))
OPEN, SUBMIT, ERROR = "overlay_open", "query_submit", "error"


class Event(NamedTuple):
    """What matters of a row of ui_events."""

    session: UUID
    ts: int
    type: str
    latency_ms: int


class Row(NamedTuple):
    """A row of session_stats; the hour as a number, rates as the bits of a Float32."""

    hour: int
    session: UUID
    avg_latency_ms: int
    error_rate: int
    abandonment_rate: int
    events_count: int
    duration_seconds: int


def _bits(rate: float | Fraction) -> int:
    return int(np.float32(float(rate)).view(np.uint32))


def _expected(events: Iterable[Event]) -> list[Row]:
    """Each window by itself, event by event, as the definition reads."""
    windows: dict[tuple[int, UUID], list[Event]] = {}
    for event in events:
        windows.setdefault((event.ts // _HOUR_MS, event.session), []).append(event)
    return [_row(hour, session, own) for (hour, session), own in sorted(windows.items())]


def _row(hour: int, session: UUID, events: Sequence[Event]) -> Row:
    ordered = sorted(events, key=lambda event: (event.ts, event.type == SUBMIT))
    types = [event.type for event in ordered if event.type != ERROR]
    answers = [later for earlier, later in zip(types, [*types, ""][1:], strict=True) if earlier == OPEN]
    abandoned = Fraction(sum(answer != SUBMIT for answer in answers), len(answers) or 1)
    mean = Fraction(sum(event.latency_ms for event in events), len(events))
    return Row(
        hour,
        session,
        int(mean + Fraction(1, 2)),
        _bits(Fraction(len(events) - len(types), len(events))),
        _bits(abandoned),
        len(events),
        (ordered[-1].ts - ordered[0].ts) // 1000,
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    """In the test's own database, with all tables."""
    migrate(settings.clickhouse)
    with connect(settings.clickhouse) as connected:
        yield connected


@pytest.fixture
def catalog(settings: Settings) -> Catalog:
    """All topics and tables are there, and the partitions have their leaders."""
    declared = prepare(settings)
    assert declared.rollup
    consumer = Consumer({**client_config(settings.kafka), "group.id": settings.kafka.group_id, "log_level": 0})
    topics = (declared.rollup.source.topic, declared.rollup.state)
    places = [TopicPartition(topic.name, partition) for topic in topics for partition in range(topic.partitions)]
    eventually(lambda: _answers(consumer, places), "leaders of the partitions")
    consumer.close()
    return declared


def _answers(consumer: Consumer, places: Iterable[TopicPartition]) -> bool:
    try:
        return all(consumer.get_watermark_offsets(place, 5) is not None for place in places)
    except KafkaException:
        return False


def _store_events(client: Client, events: Iterable[Event]) -> None:
    rows = [(event.session, event.ts, event.type, event.latency_ms) for event in events]
    client.execute(
        "INSERT INTO ui_events (session_id, ts, event_type, latency_ms) SELECT s, fromUnixTimestamp64Milli(t, 'UTC'), "
        "e, l FROM input('s UUID, t Int64, e String, l UInt32') FORMAT Native",
        rows,
    )


def _store_rows(client: Client, rows: Iterable[Row]) -> None:
    client.execute(
        "INSERT INTO session_stats SELECT toDateTime(h * 3600), s, a, reinterpretAsFloat32(e), "
        "reinterpretAsFloat32(b), n, d "
        "FROM input('h UInt32, s UUID, a UInt32, e UInt32, b UInt32, n UInt32, d UInt32') FORMAT Native",
        [tuple(row) for row in rows],
        settings={"insert_deduplicate": 0},
    )


def _stored_rows(client: Client) -> list[Row]:
    return sorted(
        Row(*values)
        for values in client.execute(
            "SELECT intDiv(toUnixTimestamp(hour), 3600), session_id, avg_latency_ms, reinterpretAsUInt32(error_rate), "
            "reinterpretAsUInt32(abandonment_rate), events_count, duration_seconds FROM session_stats"
        )
    )


def _uuid(number: int) -> UUID:
    return UUID(int=number * 0x1234_5678_9ABC_DEF0_1234_5678_9ABC % 2**128)


def _random_events(seed: int, count: int = 4000, sessions: int = 300, hours: int = 3) -> list[Event]:
    """Crowded, so that many are of the same millisecond, and many on or beside the full hour."""
    chance = random.Random(seed)
    moments = [hour * _HOUR_MS + offset for hour in range(hours) for offset in (0, 1, 999, 1000, _HOUR_MS - 1)]
    return [
        Event(
            _uuid(chance.randrange(sessions)),
            _NOON * _HOUR_MS + chance.choice([chance.randrange(hours * _HOUR_MS), chance.choice(moments)]),
            chance.choice([OPEN, OPEN, SUBMIT, ERROR]),
            chance.choice([0, 1, 2, 3, chance.randrange(5000), _HUGE]),
        )
        for _ in range(count)
    ]


def _tables(client: Client) -> set[str]:
    return {name for (name,) in client.execute("SHOW TABLES")}


# Hour from noon, ms into it, type, latency; and by hour: mean latency, error rate, abandonment, events, seconds.
_CASES: dict[str, tuple[list[tuple[int, int, str, int]], dict[int, tuple[int, float, float, int, int]]]] = {
    "one event": ([(0, 5, SUBMIT, 7)], {0: (7, 0, 0, 1, 0)}),
    "exactly on the hour": ([(1, 0, OPEN, 1)], {1: (1, 0, 1, 1, 0)}),
    "the last millisecond of the hour": ([(0, _HOUR_MS - 1, OPEN, 1)], {0: (1, 0, 1, 1, 0)}),
    "open and submit in the same millisecond": ([(0, 9, SUBMIT, 0), (0, 9, OPEN, 0)], {0: (0, 0, 0, 2, 0)}),
    "two opens and a submit in the same millisecond": (
        [(0, 9, OPEN, 0), (0, 9, SUBMIT, 0), (0, 9, OPEN, 0)],
        {0: (0, 0, 0.5, 3, 0)},
    ),
    "crosses the hour": (
        [(0, _HOUR_MS - 1500, OPEN, 1), (0, _HOUR_MS - 1, SUBMIT, 2), (1, 0, OPEN, 4), (1, 2999, SUBMIT, 4)],
        {0: (2, 0, 0, 2, 1), 1: (4, 0, 0, 2, 2)},
    ),
    "only errors": ([(0, 1, ERROR, 10), (0, 2, ERROR, 11)], {0: (11, 1, 0, 2, 0)}),
    "an open never answered": ([(0, 1, SUBMIT, 0), (0, 2, OPEN, 0)], {0: (0, 0, 1, 2, 0)}),
    "two opens, then a submit": ([(0, 1, OPEN, 0), (0, 2, OPEN, 0), (0, 3, SUBMIT, 0)], {0: (0, 0, 0.5, 3, 0)}),
    "an error between open and submit": (
        [(0, 1, OPEN, 0), (0, 2, ERROR, 0), (0, 1003, SUBMIT, 1)],
        {0: (0, 1 / 3, 0, 3, 1)},
    ),
    "answered past the hour": ([(0, 3_599_000, OPEN, 0), (1, 1, SUBMIT, 0)], {0: (0, 0, 1, 1, 0), 1: (0, 0, 0, 1, 0)}),
    "half rounds up": ([(0, 1, SUBMIT, 1), (0, 2, SUBMIT, 2)], {0: (2, 0, 0, 2, 0)}),
    "below half rounds down": ([(0, 1, SUBMIT, 1), (0, 2, SUBMIT, 1), (0, 3, SUBMIT, 2)], {0: (1, 0, 0, 3, 0)}),
    "the greatest latencies": ([(0, 0, SUBMIT, _HUGE), (0, 3_599_999, SUBMIT, _HUGE)], {0: (_HUGE, 0, 0, 2, 3599)}),
    "a skewed clock, far ahead": (
        [(0, 1, OPEN, 3), (500_000, 1, OPEN, 3)],
        {0: (3, 0, 1, 1, 0), 500_000: (3, 0, 1, 1, 0)},
    ),
}


def test_the_sql_is_the_definition(client: Client) -> None:
    """Every edge case by name, with figures worked out by hand; plain Python agrees, and empty hours stay empty."""
    by_hand: dict[str, list[Row]] = {}
    for number, (name, (events, rows)) in enumerate(_CASES.items(), 1):
        session = _uuid(number)
        own = [Event(session, (_NOON + hour) * _HOUR_MS + ms, kind, latency) for hour, ms, kind, latency in events]
        _store_events(client, own)
        by_hand[name] = [
            Row(_NOON + hour, session, mean, _bits(errors), _bits(abandoned), count, seconds)
            for hour, (mean, errors, abandoned, count, seconds) in rows.items()
        ]
        assert _expected(own) == by_hand[name], name
    audit = Audit(client, "ui_events")
    for hour in audit.hours(None):
        client.execute(f"INSERT INTO session_stats {audit.recomputed(hour)}")
    found = _stored_rows(client)
    assert {name: [row for row in found if row.session == rows[0].session] for name, rows in by_hand.items()} == by_hand
    assert len(found) == sum(map(len, by_hand.values()))


def test_the_first_and_the_last_hour_of_time(client: Client) -> None:
    """At the bounds of what a schema allows and DateTime holds."""
    events = [Event(_uuid(1), 0, OPEN, 1), Event(UUID(int=0), _HUGE * 1000 + 999, SUBMIT, _HUGE)]
    _store_events(client, events)
    _store_rows(client, _expected(events))
    report = verify(Audit(client, "ui_events"), _ALL_CLOSED)
    assert (report.rows, report.found.total(), report.gone_hours) == (2, 0, [])
    last = verify(Audit(client, "ui_events"), _ALL_CLOSED, date(2106, 2, 7))
    assert (last.rows, last.found.total()) == (1, 0)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_sql_agrees_with_plain_python(client: Client, seed: int) -> None:
    """Thousands of crowded events, compared exactly; not one row more or fewer."""
    events = _random_events(seed)
    _store_events(client, events)
    _store_rows(client, _expected(events))
    report = verify(Audit(client, "ui_events"), _ALL_CLOSED)
    assert (report.rows, report.hours, report.found.total()) == (len(_expected(events)), 3, 0)


def _break(rows: list[Row]) -> tuple[list[Row], dict[UUID, tuple[Kind, tuple[str, ...]]]]:
    """One row of each kind of broken ones, and what is to be said of each; the rest is right."""
    rates = np.array([row.error_rate for row in rows], np.uint32).view(np.float32)
    neighbour = int(np.nextafter(rates[2], np.float32(2)).view(np.uint32))
    nan, minus_zero = _bits(float("nan")), _bits(-0.0)
    plain = next(index for index, row in enumerate(rows) if index > 8 and row.abandonment_rate == 0)
    extra = Row(_NOON, _uuid(999_999), _HUGE, nan, nan, _HUGE, _HUGE)
    changes: list[tuple[int, list[Row], Kind, tuple[str, ...]]] = [
        (0, [], Kind.MISSING, ()),
        (1, [rows[1], rows[1]], Kind.SPLIT, ()),
        (2, [rows[2]._replace(error_rate=neighbour)], Kind.DIFFERING, ("error_rate",)),
        (3, [rows[3]._replace(abandonment_rate=nan)], Kind.DIFFERING, ("abandonment_rate",)),
        (4, [rows[4]._replace(avg_latency_ms=rows[4].avg_latency_ms ^ 1)], Kind.DIFFERING, ("avg_latency_ms",)),
        (5, [rows[5]._replace(events_count=_HUGE)], Kind.DIFFERING, ("events_count",)),
        (6, [rows[6]._replace(duration_seconds=_HUGE)], Kind.DIFFERING, ("duration_seconds",)),
        (plain, [rows[plain]._replace(abandonment_rate=minus_zero)], Kind.DIFFERING, ("abandonment_rate",)),
    ]
    found = {rows[index].session: (kind, names) for index, _, kind, names in changes}
    touched = {index for index, *_ in changes}
    kept = [row for index, row in enumerate(rows) if index not in touched]
    broken = [row for _, instead, *_ in changes for row in instead]
    return [*kept, *broken, extra], found | {extra.session: (Kind.EXTRA, ())}


def test_every_kind_of_broken_row_is_found(client: Client) -> None:
    """One of each among rows that are right: each is listed once, with the column that differs, and nothing else is."""
    events = _random_events(3, hours=1)
    _store_events(client, events)
    rows, broken = _break(_expected(events))
    _store_rows(client, rows)
    report = verify(Audit(client, "ui_events"), _ALL_CLOSED)
    said = {
        difference.session_id: (
            difference.kind,
            difference.found.differing(difference.expected)
            if difference.kind is Kind.DIFFERING and difference.found and difference.expected
            else (),
        )
        for difference, _ in report.listed
    }
    assert said == broken
    assert report.found.total() == len(report.listed) == len(broken)
    assert report.explained == 0
    assert report.rows == len(rows) + 1  # and the one that is missing


def test_a_row_beside_the_hour_has_no_events(client: Client) -> None:
    """An `hour` that isn't a full one is nothing a worker writes, even where the session has events then."""
    _store_events(client, [Event(_uuid(1), _NOON * _HOUR_MS + 60_000, OPEN, 1)])
    client.execute(f"INSERT INTO session_stats (hour, session_id) SELECT {_NOON * 3600 + 60}, '{_uuid(1)}'")
    report = verify(Audit(client, "ui_events"), _ALL_CLOSED, _DAY)
    assert report.found == {Kind.EXTRA: 1, Kind.MISSING: 1}


def test_days_whose_events_are_deleted_are_not_compared(client: Client) -> None:
    """Rows older than all events are counted and left alone; a day in between that has none is no such day."""
    day = 24 * _HOUR_MS
    kept = [Event(_uuid(1), _NOON * _HOUR_MS, OPEN, 1), Event(_uuid(1), _NOON * _HOUR_MS + 2 * day, OPEN, 1)]
    lost = [Event(_uuid(1), _NOON * _HOUR_MS + offset, OPEN, 1) for offset in (-day, day)]
    _store_events(client, kept)
    _store_rows(client, _expected([*kept, *lost]))
    report = verify(Audit(client, "ui_events"), _ALL_CLOSED)
    assert [hour.number for hour in report.gone_hours] == [_NOON - 24]
    assert [difference.hour.number for difference, _ in report.listed] == [_NOON + 24]
    assert (report.rows, report.found) == (3, {Kind.EXTRA: 1})


def _late(counts: dict[tuple[int, UUID], int]) -> Horizon:
    """Everything is closed, and so many events came too late for these windows."""
    return Horizon(float("inf"), (_snapshot("t", 0, 1, 10**15, counts),))


def _snapshot(
    topic_id: str, partition: int, offset: int, watermark: int, late: dict[tuple[int, UUID], int] | None = None
) -> Snapshot:
    """Of a partition without open windows."""
    late = late or {}
    columns = dict(PartitionWindows(600_000).columns())
    columns["late.hour"] = np.array([hour for hour, _ in late], np.int64)
    columns["late.session_id"] = np.frombuffer(b"".join(session.bytes for _, session in late), "V16")
    columns["late.count"] = np.array(list(late.values()), np.int64)
    return Snapshot(topic_id, partition, offset, watermark, columns)


def test_late_events_explain_exactly_what_they_can(client: Client) -> None:
    """A row that lacks as many events as came late is explained, no other one, and none of two."""
    first = [Event(_uuid(number), _NOON * _HOUR_MS + 5, OPEN, 1) for number in range(1, 6)]
    later = [Event(_uuid(number), _NOON * _HOUR_MS + 7, OPEN, 1) for number in (1, 2, 2, 3, 6)]
    _store_events(client, [*first, *later])
    _store_rows(client, [*_expected(first), _expected(first)[4]])
    counts = {(_NOON, _uuid(number)): 1 for number in (1, 2, 3, 5, 6)} | {(_NOON + 1, _uuid(4)): 1}
    report = verify(Audit(client, "ui_events"), _late(counts))
    assert {difference.session_id: explained for difference, explained in report.listed} == {
        _uuid(1): True,
        _uuid(2): False,  # it lacks two, and one came late
        _uuid(3): True,
        _uuid(5): False,  # split
        _uuid(6): True,  # missing altogether
    }
    assert (report.explained, report.unexplained, report.late_included) == (3, 2, 0)


def test_late_events_of_two_partitions_add_up() -> None:
    """A session whose partition has changed may be late in both."""
    one, two = (_snapshot("t", number, 1, 10**15, {(_NOON, _uuid(1)): number + 1}) for number in (0, 1))
    hour = Hour(_NOON * 3600, _DAY, 0, 0)
    assert Horizon(float("inf"), (one, two)).late_events(hour) == {_uuid(1): 3}


# The horizon: what a real broker's snapshots say.


def _topic_id(settings: Settings, catalog: Catalog) -> str:
    assert catalog.rollup
    name = catalog.rollup.source.topic.name
    return TopicAdmin(settings.kafka).ids([name])[name]


def _store(settings: Settings, catalog: Catalog) -> SnapshotStore:
    assert catalog.rollup
    return SnapshotStore(settings.kafka, catalog.rollup.state)


def _commit(settings: Settings, catalog: Catalog, offset: int) -> None:
    assert catalog.rollup
    consumer = Consumer({**client_config(settings.kafka), "group.id": settings.kafka.group_id})
    consumer.commit(offsets=[TopicPartition(catalog.rollup.source.topic.name, 0, offset)], asynchronous=False)
    consumer.close()


def test_an_hour_is_closed_when_all_partitions_with_records_have_emitted_it(
    settings: Settings, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an empty topic to a snapshot that ingest has caught up with: what can be said when."""
    assert catalog.rollup
    monkeypatch.setattr(horizon_module, "_CATCH_UP_SECONDS", 0)
    noon = Hour(_NOON * 3600, _DAY, 0, 0)
    assert read_horizon(settings, catalog.rollup).closed(noon), "no records: nothing can be open"

    publish(settings, catalog.rollup.source.topic.name, [b"1", b"2", b"3"])  # to partition 0; the other one stays empty
    with pytest.raises(UnavailableError, match=r"no snapshot of the rollup yet of partition 0, .* run the worker"):
        read_horizon(settings, catalog.rollup)

    store = _store(settings, catalog)
    store.write(_snapshot(_topic_id(settings, catalog), 0, 2, (_NOON + 1) * _HOUR_MS - 1))
    with pytest.raises(UnavailableError, match="has committed 0, the rollup has counted up to 2"):
        read_horizon(settings, catalog.rollup)
    _commit(settings, catalog, 2)
    assert not read_horizon(settings, catalog.rollup).closed(noon), "a millisecond is missing"

    store.write(_snapshot(_topic_id(settings, catalog), 0, 2, (_NOON + 1) * _HOUR_MS))  # the same offset, by the clock
    assert read_horizon(settings, catalog.rollup).closed(noon)


def test_a_partition_at_rest_keeps_no_hour_open_that_is_over(settings: Settings, catalog: Catalog) -> None:
    """Its watermark stands still; but while it has a window, an event that waits, or a record to read, it counts."""
    assert catalog.rollup
    publish(settings, catalog.rollup.source.topic.name, [b"1"])
    _commit(settings, catalog, 1)
    store, topic_id = _store(settings, catalog), _topic_id(settings, catalog)
    grace_ms = round(settings.rollup.grace_seconds * 1000)
    now = ((_NOON + 9) * _HOUR_MS + grace_ms) / 1000

    windows = PartitionWindows(grace_ms)
    at, session = np.array([_NOON * _HOUR_MS]), np.frombuffer(_uuid(1).bytes, "V16")
    windows.add(Events(session, at, np.array([0], np.uint8), np.array([1]), at))
    steps: list[tuple[str, Callable[[], None], int]] = [
        ("an event waits", lambda: None, -1),
        ("a window is open", lambda: windows.raise_watermark(_NOON * _HOUR_MS + 1), 0),
        ("it is closed, and not yet stored", lambda: windows.raise_watermark((_NOON + 3) * _HOUR_MS), 0),
        ("at rest", lambda: windows.remove(_NOON), 9),
    ]
    for state, step, hour in steps:
        step()
        store.write(Snapshot(topic_id, 0, 1, windows.watermark, windows.columns()))
        assert read_horizon(settings, catalog.rollup, clock=lambda: now).closed_before == _NOON + hour, state
    publish(settings, catalog.rollup.source.topic.name, [b"2"])
    assert read_horizon(settings, catalog.rollup, clock=lambda: now).closed_before == _NOON + 3


def test_topics_that_are_not_there_halt(settings: Settings, catalog: Catalog) -> None:
    """The one of the state, as the one of the events."""
    assert catalog.rollup
    missing = catalog.rollup.state.model_copy(update={"name": f"{settings.kafka.group_id}.absent"})
    with pytest.raises(HaltError, match=r"no topic .*absent; create it with `chimera topics apply`"):
        read_horizon(settings, catalog.rollup._replace(state=missing))


def _chimera(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_the_commands_from_broken_to_repaired(settings: Settings, catalog: Catalog) -> None:
    """Verify finds, repair shows and does, verify finds nothing; open hours, other days and both tables' rest stay."""
    assert catalog.rollup
    publish(settings, catalog.rollup.source.topic.name, [b"1", b"2"])
    _commit(settings, catalog, 1)
    # Of three hours, one is open.
    _store(settings, catalog).write(_snapshot(_topic_id(settings, catalog), 0, 1, (_NOON + 2) * _HOUR_MS))
    events = _random_events(4)
    tomorrow = [Event(_uuid(1), (_NOON + 24) * _HOUR_MS, OPEN, 5)]
    with connect(settings.clickhouse) as client:
        _store_events(client, [*events, *tomorrow])
        expected = _expected(events)
        last_hour = [row._replace(events_count=1) for row in expected if row.hour == _NOON + 2]  # wrong, and not ours
        broken, _ = _break([row for row in expected if row.hour == _NOON])
        right = [row for row in expected if row.hour == _NOON + 1]
        untouched = [row._replace(events_count=7) for row in _expected(tomorrow)]
        _store_rows(client, [*broken, *right, *last_hour, *untouched])
        before = _stored_rows(client)

        found = _chimera("verify", "--json", "--limit", "2")
        facts = orjson.loads(found.stdout)
        assert found.exit_code == 1
        assert {str(kind): facts[kind] for kind in Kind} == {"differing": 6, "missing": 1, "extra": 1, "split": 1}
        assert (facts["hours"], facts["explained"], facts["unexplained"], len(facts["listed"])) == (2, 0, 9, 2)
        assert facts["open"]["rows"] == len(last_hour) + 1
        assert "are still open" in _chimera("verify").stdout

        shown = _chimera("repair", "--day", str(_DAY))
        assert (shown.exit_code, _stored_rows(client)) == (0, before)
        assert "add --execute" in shown.stderr
        done = _chimera("repair", "--day", str(_DAY), "--execute")
        assert (done.exit_code, done.stderr) == (0, f"Repaired {_DAY}.\n")
        closed = [row for row in expected if row.hour < _NOON + 2]
        assert _stored_rows(client) == sorted([*closed, *last_hour, *untouched])
        assert (_chimera("verify").exit_code, _chimera("verify", "--day", str(_DAY)).exit_code) == (0, 0)
        assert "Nothing to repair" in _chimera("repair", "--day", str(_DAY), "--execute").stderr
        assert not {name for name in _tables(client) if "repair" in name}


@pytest.mark.parametrize("day", ["1969-12-31", "2106-02-08", "today", "2026-02-30"])
def test_a_day_that_is_none_is_refused(day: str) -> None:
    """Before anything is asked of a server: ClickHouse would take another day for it."""
    result = _chimera("repair", "--day", day)
    assert (result.exit_code, "--day" in result.stderr) == (2, True)


# Repair by itself, with everything closed unless it is said otherwise.


def _plan(client: Client, horizon: Horizon = _ALL_CLOSED) -> Plan:
    return plan(Audit(client, "ui_events"), horizon, _DAY)


def _repair(settings: Settings, horizon: Horizon = _ALL_CLOSED) -> None:
    repair(settings.clickhouse, "ui_events", horizon, _DAY)


def _verify(client: Client, horizon: Horizon = _ALL_CLOSED) -> Report:
    return verify(Audit(client, "ui_events"), horizon)


def test_a_plan_says_what_becomes_of_each_hour(client: Client) -> None:
    """Kept, changed, added and removed, and what late events are the reason for."""
    events = _random_events(5, hours=2)
    rows = _expected(events)
    late = next(row for row in rows if row.hour == _NOON + 1)
    _store_events(client, events)
    broken, _ = _break([row for row in rows if row.hour == _NOON])
    _store_rows(client, [*broken, *(row for row in rows if row.hour == _NOON + 1 and row != late)])
    horizon = _late({(_NOON + 1, late.session): late.events_count})
    planned = _plan(client, horizon)
    first, second = planned.hours
    assert (first.kept, first.changed, first.added, first.removed, first.late) == (len(broken) - 9, 7, 1, 1, 0)
    assert (second.changed, second.added, second.removed, second.late) == (0, 1, 0, 1)
    assert planned.changes


def test_a_repair_includes_late_events(settings: Settings, client: Client) -> None:
    """Afterwards verify finds nothing, and says that they are in."""
    events = [Event(_uuid(number), _NOON * _HOUR_MS + number, OPEN, 1) for number in (1, 2, 2)]
    _store_events(client, events)
    _store_rows(client, _expected(events[:2]))
    horizon = _late({(_NOON, _uuid(2)): 1})
    assert (_verify(client, horizon).explained, _verify(client, horizon).late_included) == (1, 0)
    _repair(settings, horizon)
    assert (_verify(client, horizon).found.total(), _verify(client, horizon).late_included) == (0, 1)
    assert _stored_rows(client) == _expected(events)


def _broken_day(client: Client) -> list[Row]:
    """An hour of events without any row, and the rows that are to be."""
    events = _random_events(6, count=50, hours=1)
    _store_events(client, events)
    return _expected(events)


_EMITTED = Row(_NOON + 3, _uuid(77), 1, 0, 0, 1, 0)
_ONE_OPEN = Horizon(_NOON + 3)


def _before(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], None]) -> None:
    """Have something happen before each call of a step of the repair."""
    step = getattr(repair_module, name)

    def delayed(*arguments: Any) -> Any:
        act()
        return step(*arguments)

    monkeypatch.setattr(repair_module, name, delayed)


def test_rows_that_come_while_others_are_copied_are_kept(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream job emits an hour after its rows were looked for: the repair starts anew, and ends with them."""
    rows = _broken_day(client)
    looks: list[int] = []

    def emit_before_the_second_look() -> None:
        looks.append(1)
        if len(looks) == 2:
            _store_rows(client, [_EMITTED])

    _before(monkeypatch, "_newest_block", emit_before_the_second_look)
    _repair(settings, _ONE_OPEN)
    assert _stored_rows(client) == [*rows, _EMITTED]
    assert len(looks) == 4, "one look before and one after each of two copies"


def test_rows_that_never_stop_coming_end_a_repair(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives up, has changed nothing, and leaves no table behind."""
    _broken_day(client)
    _before(monkeypatch, "_newest_block", lambda: _store_rows(client, [_EMITTED]))
    with pytest.raises(OvertakenError, match="nothing was changed"):
        _repair(settings, _ONE_OPEN)
    assert set(_stored_rows(client)) == {_EMITTED}
    assert not {name for name in _tables(client) if "repair" in name}


def test_rows_that_come_at_the_last_moment_are_missed_loudly(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last look and the step they can't be kept: it says so, and the same repair brings them back."""
    rows = _broken_day(client)
    _store_events(client, [Event(_EMITTED.session, _EMITTED.hour * _HOUR_MS, SUBMIT, 1)])
    with monkeypatch.context() as patch:
        _before(patch, "_replace", lambda: _store_rows(client, [_EMITTED]))
        with pytest.raises(OvertakenError, match=r"stored 1 rows of the hour 15:00 UTC, .* again"):
            _repair(settings, _ONE_OPEN)
    assert _stored_rows(client) == rows
    _repair(settings)
    assert _stored_rows(client) == [*rows, _EMITTED]


def test_rows_that_come_after_the_step_are_no_concern(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even when ClickHouse merges them with the new ones at once, so that parts of the repair are replaced."""
    rows = _broken_day(client)

    def emit_and_merge() -> None:
        _store_rows(client, [_EMITTED])
        client.execute("OPTIMIZE TABLE session_stats FINAL")

    _before(monkeypatch, "_check_nothing_lost", emit_and_merge)
    _repair(settings, _ONE_OPEN)
    assert _stored_rows(client) == [*rows, _EMITTED]


def test_a_repair_that_fails_changes_nothing(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted before the step, even by the user: the rows are those before, and its table is gone."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    rows = _broken_day(client)[:10]
    _store_rows(client, rows)
    _before(monkeypatch, "_replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _repair(settings)
    assert _stored_rows(client) == rows
    assert not {name for name in _tables(client) if "repair" in name}


def test_two_repairs_at_once_end_as_one(settings: Settings, client: Client) -> None:
    """Each has a table of its own; whichever is overtaken starts anew."""
    rows = _broken_day(client)
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(_repair, settings) for _ in range(2)]:
            done.result()
    assert _stored_rows(client) == rows
    assert not {name for name in _tables(client) if "repair" in name}


def test_a_day_without_events_is_not_wiped(client: Client) -> None:
    """Its rows can't be computed any more: refused, with what to do when that is meant; open hours don't matter."""
    events = [Event(_uuid(1), _NOON * _HOUR_MS, OPEN, 1), Event(_uuid(1), (_NOON + 3) * _HOUR_MS, OPEN, 1)]
    _store_rows(client, _expected(events))
    _store_events(client, events[1:])
    with pytest.raises(RefusedError, match=r"no events of 2026-01-31 .* all 1 rows .* DROP PARTITION '2026-01-31'"):
        _plan(client, _ONE_OPEN).check()
    _plan(client).check()  # the other hour has some: now it is a repair
    client.execute("TRUNCATE TABLE session_stats")
    _plan(client, _ONE_OPEN).check()  # nothing to lose


# What a user of ClickHouse needs to be allowed.


@pytest.mark.parametrize("task", ["verify", "repair"])
def test_rights(tmp_path: Path, task: str) -> None:
    """Verify needs no more than reading, under a profile that lets nothing be set; repair what the docs list."""
    documented = (Path(__file__).parents[2] / "docs/session_stats.md").read_text(encoding="utf-8")
    grants = [line.split(" TO ")[0] for line in documented.splitlines() if line.startswith("GRANT ")]
    reader = [grant for grant in grants if grant.startswith("GRANT SELECT ON chimera_metrics.")]
    chosen, limits = (reader, {"readonly": Limit(1)}) if task == "verify" else (grants, {})
    user = ClickHouseUser("auditor", "correct horse", tuple(chosen), limits)
    with ClickHouseServer(tmp_path / "server", users=[user]) as server:
        admin = ClickHouseSettings(port=server.port)
        migrate(admin)
        auditor = admin.model_copy(update={"user": user.name, "password": SecretStr(user.password)})
        with connect(admin) as client:
            rows = _broken_day(client)
            with connect(auditor) as own:
                assert verify(Audit(own, "ui_events"), _ALL_CLOSED).found == {Kind.MISSING: len(rows)}
            if task == "repair":
                repair(auditor, "ui_events", _ALL_CLOSED, _DAY)
                assert _stored_rows(client) == rows
