"""`chimera rollup verify` and `repair` on a real broker and a real ClickHouse, and their horizon from snapshots."""

import time
from collections.abc import Callable, Iterable

import numpy as np
import orjson
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, KafkaException, TopicPartition
from support.events import publish
from support.processes import eventually, prepare
from support.session_stats import (
    DAY,
    HOUR_MS,
    NOON,
    OPEN,
    Event,
    break_rows,
    expected_rows,
    random_events,
    snapshot_at_rest,
    store_events,
    store_rows,
    stored_rows,
    tables,
    uuid,
)

from pipeline.catalog import Catalog
from pipeline.cli.rollup import rollup as command
from pipeline.clickhouse.client import connect
from pipeline.config import Settings
from pipeline.errors import HaltError, UnavailableError
from pipeline.kafka.client import client_config
from pipeline.kafka.topics import TopicAdmin
from pipeline.rollup.audit import Hour, Kind
from pipeline.rollup.horizon import read_horizon
from pipeline.rollup.partition import Events, PartitionWindows
from pipeline.rollup.snapshot import Snapshot
from pipeline.rollup.store import SnapshotStore

pytestmark = pytest.mark.integration


@pytest.fixture
def catalog(settings: Settings) -> Catalog:
    """The catalog, after all topics and tables are created and the partitions have leaders."""
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
    settings: Settings, catalog: Catalog
) -> None:
    """Read the horizon in each state from an empty topic to a snapshot that ingest has caught up with."""
    assert catalog.rollup
    noon = Hour(NOON * 3600, DAY, 0, 0)
    assert read_horizon(settings, catalog.rollup, catch_up_seconds=0).closed(noon), (
        "without records, no hour can be open"
    )

    publish(
        settings, catalog.rollup.source.topic.name, [b"1", b"2", b"3"]
    )  # to partition 0; the other partition stays empty
    with pytest.raises(UnavailableError, match=r"no snapshot of the rollup yet of partition 0, .* run the worker"):
        read_horizon(settings, catalog.rollup, catch_up_seconds=0)

    store = _store(settings, catalog)
    store.write(snapshot_at_rest(_topic_id(settings, catalog), 0, 2, (NOON + 1) * HOUR_MS - 1))
    with pytest.raises(UnavailableError, match="has committed 0, the rollup has counted up to 2"):
        read_horizon(settings, catalog.rollup, catch_up_seconds=0)
    _commit(settings, catalog, 2)
    assert not read_horizon(settings, catalog.rollup, catch_up_seconds=0).closed(noon), "a millisecond is missing"

    store.write(
        snapshot_at_rest(_topic_id(settings, catalog), 0, 2, (NOON + 1) * HOUR_MS)
    )  # the same offset, by the clock
    assert read_horizon(settings, catalog.rollup, catch_up_seconds=0).closed(noon)


def test_a_partition_that_never_had_a_record_needs_no_commit(settings: Settings, catalog: Catalog) -> None:
    """Its snapshot is at the log's beginning, where ingest stands too; a snapshot further on waits for a commit."""
    assert catalog.rollup
    store, topic_id = _store(settings, catalog), _topic_id(settings, catalog)
    store.write(snapshot_at_rest(topic_id, 1, 0, (NOON + 1) * HOUR_MS))
    assert read_horizon(settings, catalog.rollup, catch_up_seconds=0).snapshots
    store.write(snapshot_at_rest(topic_id, 1, 1, (NOON + 1) * HOUR_MS))
    with pytest.raises(
        UnavailableError, match="partition 1: the group has committed 0, the rollup has counted up to 1"
    ):
        read_horizon(settings, catalog.rollup, catch_up_seconds=0)


def test_a_partition_at_rest_keeps_no_hour_open_that_is_over(settings: Settings, catalog: Catalog) -> None:
    """Its watermark stands still. A window, a waiting event or an unread record keeps hours open."""
    assert catalog.rollup
    publish(settings, catalog.rollup.source.topic.name, [b"1"])
    _commit(settings, catalog, 1)
    store, topic_id = _store(settings, catalog), _topic_id(settings, catalog)
    grace_ms = round(settings.rollup.grace_seconds * 1000)
    windows = PartitionWindows(grace_ms)
    at, session = np.array([NOON * HOUR_MS]), np.frombuffer(uuid(1).bytes, "V16")
    windows.add(Events(session, at, np.array([0], np.uint8), np.array([1]), at))
    over = _hour_over(grace_ms)
    steps: list[tuple[str, Callable[[], None], int]] = [
        ("an event waits", lambda: None, NOON - 1),
        ("a window is open", lambda: windows.raise_watermark(NOON * HOUR_MS + 1), NOON),
        ("it is closed, and not yet stored", lambda: windows.raise_watermark((NOON + 3) * HOUR_MS), NOON),
        ("at rest", lambda: windows.remove(NOON), over),
    ]
    for state, step, hour in steps:
        step()
        store.write(Snapshot(topic_id, 0, 1, windows.watermark, windows.columns()))
        found = read_horizon(settings, catalog.rollup).closed_before
        assert found == hour or hour == over < found == _hour_over(grace_ms), state
    publish(settings, catalog.rollup.source.topic.name, [b"2"])
    assert read_horizon(settings, catalog.rollup).closed_before == NOON + 3


def _hour_over(grace_ms: int) -> int:
    """Number of the hour before which all hours are over by the clock; the tests' broker is on this machine."""
    return (round(time.time() * 1000) - grace_ms) // HOUR_MS


def test_missing_topics_halt(settings: Settings, catalog: Catalog) -> None:
    """A missing state topic is reported with the command that creates it."""
    assert catalog.rollup
    missing = catalog.rollup.state.model_copy(update={"name": f"{settings.kafka.group_id}.absent"})
    with pytest.raises(HaltError, match=r"no topic .*absent; create it with `chimera topics apply`"):
        read_horizon(settings, catalog.rollup._replace(state=missing))


def _chimera(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_the_commands_from_broken_to_repaired(settings: Settings, catalog: Catalog) -> None:
    """Verify finds differences, repair shows and fixes them, and verify finds none; open hours and other days stay."""
    assert catalog.rollup
    publish(settings, catalog.rollup.source.topic.name, [b"1", b"2"])
    _commit(settings, catalog, 1)
    # One of three hours is open.
    _store(settings, catalog).write(snapshot_at_rest(_topic_id(settings, catalog), 0, 1, (NOON + 2) * HOUR_MS))
    events = random_events(4)
    tomorrow = [Event(uuid(1), (NOON + 24) * HOUR_MS, OPEN, 5)]
    with connect(settings.clickhouse) as client:
        store_events(client, [*events, *tomorrow])
        expected = expected_rows(events)
        last_hour = [
            row._replace(events_count=1) for row in expected if row.hour == NOON + 2
        ]  # wrong, but open: a repair must not touch it
        broken, _ = break_rows([row for row in expected if row.hour == NOON])
        right = [row for row in expected if row.hour == NOON + 1]
        untouched = [row._replace(events_count=7) for row in expected_rows(tomorrow)]
        store_rows(client, [*broken, *right, *last_hour, *untouched])
        before = stored_rows(client)

        found = _chimera("verify", "--json", "--limit", "2")
        facts = orjson.loads(found.stdout)
        assert found.exit_code == 1
        assert {str(kind): facts[kind] for kind in Kind} == {"differing": 6, "missing": 1, "extra": 1, "split": 1}
        assert (facts["hours"], facts["explained"], facts["unexplained"], len(facts["listed"])) == (2, 0, 9, 2)
        assert facts["open"]["rows"] == len(last_hour) + 1
        assert "are still open" in _chimera("verify").stdout

        shown = _chimera("repair", "--day", str(DAY))
        assert (shown.exit_code, stored_rows(client)) == (0, before)
        assert "add --execute" in shown.stderr
        done = _chimera("repair", "--day", str(DAY), "--execute")
        assert (done.exit_code, done.stderr) == (0, f"Repaired {DAY}.\n")
        closed = [row for row in expected if row.hour < NOON + 2]
        assert stored_rows(client) == sorted([*closed, *last_hour, *untouched])
        assert (_chimera("verify").exit_code, _chimera("verify", "--day", str(DAY)).exit_code) == (0, 0)
        assert "Nothing to repair" in _chimera("repair", "--day", str(DAY), "--execute").stderr
        assert not {name for name in tables(client) if "repair" in name}


@pytest.mark.parametrize("day", ["1969-12-31", "2106-02-08", "tomorrow", "2026-02-30"])
def test_an_invalid_day_is_refused(day: str) -> None:
    """It is refused before a server is asked: ClickHouse would take another day for it."""
    result = _chimera("repair", "--day", day)
    assert (result.exit_code, "--day" in result.stderr) == (2, True)
