"""Snapshots in the state topic of a real broker: a whole one always exists, and no call hangs."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.containers import ContainerStack
from support.kafka_requests import watermarks
from support.processes import eventually

from pipeline.catalog import TopicSpec, load_catalog
from pipeline.config import KafkaSettings, Settings
from pipeline.devstack import Stack
from pipeline.devstack.ports import free_port
from pipeline.errors import HaltError, UnavailableError
from pipeline.kafka.client import client_config
from pipeline.kafka.topics import TopicAdmin, plan
from pipeline.rollup.keys import MANIFEST, Key
from pipeline.rollup.slots import Loaded
from pipeline.rollup.snapshot import Snapshot
from pipeline.rollup.store import SnapshotStore

pytestmark = pytest.mark.integration

_SECONDS = 120.0
_ID = "Kq3mXo5pQ0uWm0n0aD2x7A"
_SMALL, _LARGE = 10, 150_000  # windows: one chunk, and three

Open = Callable[..., SnapshotStore]


@pytest.fixture
def topic(settings: Settings) -> TopicSpec:
    """The state topic of the test; it doesn't exist yet."""
    rollup = load_catalog(settings).rollup
    assert rollup is not None
    return rollup.state


@pytest.fixture
def store(settings: Settings, topic: TopicSpec) -> Open:
    """A function that opens a store of the existing state topic, for the test's group or another one."""
    admin = TopicAdmin(settings.kafka)
    admin.apply(plan([topic], admin.read([]), settings.topics.file))
    eventually(lambda: admin.read([topic.name]).topics, "the topic is there")

    def opened(group_id: str = settings.kafka.group_id, **limits: Any) -> SnapshotStore:
        return SnapshotStore(settings.kafka.model_copy(update={"group_id": group_id}), topic, **limits)

    return opened


@pytest.fixture
def log() -> Iterator[list[EventDict]]:
    """Entries of the log."""
    with capture_logs() as entries:
        yield entries


def snapshot(offset: int, partition: int = 0, windows: int = _SMALL, topic_id: str = _ID) -> Snapshot:
    random = np.random.default_rng(offset)
    ids = np.frombuffer(random.bytes(16 * windows), "V16")
    return Snapshot(topic_id, partition, offset, 0, {"window.hour": np.arange(windows), "window.session_id": ids})


def summary(loaded: dict[int, Loaded]) -> dict[int, tuple[int | None, int | None]]:
    """Return the offsets of the snapshot and of the one before it, by partition."""
    return {
        partition: (found.snapshot.offset if found.snapshot else None, found.older_offset)
        for partition, found in loaded.items()
    }


def latest(settings: Settings, topic: TopicSpec) -> dict[Key, bytes]:
    """Return the records that compaction would leave, in log order."""
    consumer = Consumer({**client_config(settings.kafka), "group.id": "-"})
    values: dict[Key, bytes] = {}
    for number in range(topic.partitions):
        partition = TopicPartition(topic.name, number, 0)
        _, end = watermarks(consumer, partition)
        consumer.assign([partition])
        for message in consumer.consume(end, _SECONDS) if end else ():
            key, value = Key.parse(message.key() or b""), message.value()
            assert key is not None
            values.pop(key, None)
            if value is not None:
                values[key] = value
    consumer.close()
    return values


def put(settings: Settings, topic: TopicSpec, key: Key, value: bytes) -> None:
    """Write one record, like a writer that dies afterwards."""
    producer = Producer(client_config(settings.kafka))
    producer.produce(topic.name, value, bytes(key), key.partition % topic.partitions)
    assert producer.flush(_SECONDS) == 0


def test_written_snapshots_are_loaded(store: Open) -> None:
    """The newest snapshot of each partition is loaded, with the offset of the one before; progress is reported."""
    mine = store()
    for offset in (1, 2, 3):
        for partition in range(5):
            mine.write(snapshot(offset, partition, _LARGE if partition == 3 else _SMALL))
    mine.close()
    said: list[tuple[int, int]] = []
    loaded = store().load(_ID, [0, 3, 4], lambda read, total: said.append((read, total)))
    assert summary(loaded) == dict.fromkeys((0, 3, 4), (3, 2))
    for partition, found in loaded.items():
        assert found.snapshot is not None
        wanted = snapshot(3, partition, _LARGE if partition == 3 else _SMALL)
        assert (found.snapshot.partition, found.damaged) == (partition, ())
        for name, column in wanted.columns.items():
            assert found.snapshot.columns[name].tobytes() == column.tobytes()
    records = 3 * (5 * 2 + 2)  # a chunk and a manifest each, but for two chunks more of partition 3
    assert said == [(read, records) for read in range(1, records + 1)]


def test_the_newest_snapshot_has_the_greatest_offset(store: Open) -> None:
    """Neither the order of writing nor the writer matters."""
    ahead, behind = store(), store()
    ahead.write(snapshot(9))
    behind.write(snapshot(7))
    ahead.write(snapshot(8))
    assert summary(store().load(_ID, [0])) == {0: (9, 8)}


def test_a_writer_uses_two_slots_and_leaves_no_chunks_behind(store: Open, settings: Settings, topic: TopicSpec) -> None:
    """The manifest is written last; a third snapshot replaces the first and removes its surplus chunks."""
    mine = store()
    mine.write(snapshot(1, windows=_LARGE))
    assert [key.part for key in latest(settings, topic)] == ["0", "1", "2", MANIFEST]
    for offset in (2, 3):
        mine.write(snapshot(offset))
    keys = sorted((key.slot[-1], key.part) for key in latest(settings, topic))
    assert keys == [("0", "0"), ("0", MANIFEST), ("1", "0"), ("1", MANIFEST)]
    assert summary(store().load(_ID, [0])) == {0: (3, 2)}


@pytest.mark.parametrize("new_slot", [True, False], ids=["in a new slot", "over an older one"])
def test_a_half_written_snapshot_is_skipped(
    new_slot: bool, store: Open, settings: Settings, topic: TopicSpec, log: list[EventDict]
) -> None:
    """A writer dies before the manifest: the previous one is loaded with a warning, and the next writer cleans up."""
    mine = store()
    for offset in (1, 2):
        mine.write(snapshot(offset))
    written = next(key for key in latest(settings, topic) if key.slot.endswith(".0") and key.part == "0")
    died_in = written._replace(slot="dead.0") if new_slot else written
    put(settings, topic, died_in, b"of the next one")

    next_owner = store()
    loaded = next_owner.load(_ID, [0])

    assert summary(loaded) == {0: (2, 1 if new_slot else None)}
    reason = f"{died_in.slot}: {'half-written: the manifest is missing' if new_slot else 'the checksum differs'}"
    assert [what.startswith(reason) for what in loaded[0].damaged] == [True]
    assert [(entry["log_level"], entry["reason"]) for entry in log] == [("warning", loaded[0].damaged[0])]
    for offset in (3, 4):
        next_owner.write(snapshot(offset))
    assert summary(store().load(_ID, [0])) == {0: (4, 3)}
    assert len(log) == 1


def test_only_damaged_snapshots_differ_from_no_snapshots(
    store: Open, settings: Settings, topic: TopicSpec, log: list[EventDict]
) -> None:
    """No snapshot is loaded, and the damage is reported."""
    store().write(snapshot(1))
    for key, value in latest(settings, topic).items():
        put(settings, topic, key, value[:-1] + b"\0")
    loaded = store().load(_ID, [0, 1])
    assert summary(loaded) == {0: (None, None)}
    assert len(loaded[0].damaged) == len(log) == 1


def test_an_earlier_owner_that_still_writes_does_no_harm(store: Open) -> None:
    """It writes to its own slots, and removes no snapshot of a later ownership."""
    zombie, owner = store(), store()
    owner.load(_ID, [0])
    for offset in (1, 2):
        owner.write(snapshot(offset))
    zombie.load(_ID, [0])
    zombie.write(snapshot(3))
    owner.load(_ID, [0])  # the same process, once more
    for offset in (4, 5):
        owner.write(snapshot(offset, windows=_LARGE))
        zombie.write(snapshot(offset - 1, windows=_LARGE))
    loaded = store().load(_ID, [0])
    assert summary(loaded) == {0: (5, 4)}
    assert loaded[0].damaged == ()


def test_snapshots_of_earlier_writers_are_removed_after_two_own(
    store: Open, settings: Settings, topic: TopicSpec
) -> None:
    """Slots of earlier writers and of a deleted topic with the same name are removed; other partitions stay."""
    former = store()
    for written in (snapshot(1), snapshot(2), snapshot(9, topic_id="before"), snapshot(1, partition=2)):
        former.write(written)
    owner = store()
    owner.load(_ID, [0])
    others = latest(settings, topic).keys()
    owner.write(snapshot(3))
    assert others < latest(settings, topic).keys()
    owner.write(snapshot(4))
    left = others & latest(settings, topic).keys()
    assert {key.partition for key in left} == {2}
    assert summary(store().load(_ID, [0, 2])) == {0: (4, 3), 2: (1, None)}


@pytest.mark.parametrize("other", ["topic", "group"])
def test_snapshots_of_other_topics_and_groups_are_not_loaded(other: str, store: Open, settings: Settings) -> None:
    """Another topic has other records, and another group has stored other rows; its snapshots stay."""
    group = "another" if other == "group" else settings.kafka.group_id
    theirs = store(group)
    theirs.write(snapshot(5, topic_id=_ID if other == "group" else "before"))
    mine = store()
    assert mine.load(_ID, [0]) == {}
    for offset in (1, 2):
        mine.write(snapshot(offset))
    assert summary(store().load(_ID, [0])) == {0: (2, 1)}
    if other == "group":
        assert summary(theirs.load(_ID, [0])) == {0: (5, None)}


def test_an_empty_topic_has_nothing(store: Open) -> None:
    """The very first start loads nothing."""
    assert store().load(_ID, range(4)) == {}


@pytest.fixture
def impatient() -> Iterator[None]:
    """The test fails if it takes 10 s."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("impatient")
def test_a_missing_broker_is_reported_with_its_address(topic: TopicSpec) -> None:
    """No server listens: reading and writing fail soon, and may be tried again."""
    nowhere = f"127.0.0.1:{free_port()}"
    store = SnapshotStore(KafkaSettings(bootstrap_servers=nowhere), topic, answer_seconds=1.0, probe_seconds=1.0)
    with pytest.raises(UnavailableError, match=f"Kafka at {nowhere} is not available"):
        store.load(_ID, [0])
    with pytest.raises(UnavailableError, match=f"Kafka at {nowhere} is not available"):
        store.write(snapshot(1))


def test_a_missing_topic_is_reported_with_the_command_that_creates_it(settings: Settings, topic: TopicSpec) -> None:
    """Another try wouldn't help."""
    store = SnapshotStore(settings.kafka, topic)
    for use in (lambda: store.load(_ID, [0]), lambda: store.write(snapshot(1))):
        with pytest.raises(HaltError, match=rf"no topic {topic.name}; create it with `chimera topics apply`"):
            use()


@pytest.mark.usefixtures("impatient")
def test_calls_on_a_silent_broker_end_soon(store: Open, stack: Stack | ContainerStack) -> None:
    """A load and a write fail during the silence; afterwards all snapshots are intact."""
    mine = store(answer_seconds=1.0, probe_seconds=1.0)
    for offset in (1, 2):
        for partition in (0, 1):
            mine.write(snapshot(offset, partition))
    with pytest.raises(UnavailableError, match="is not available"):
        store(answer_seconds=1.0, probe_seconds=1.0).load(_ID, [0, 1], lambda _read, _total: stack.kafka.pause())
    with pytest.raises(UnavailableError, match="is not available"):
        mine.write(snapshot(3))
    stack.kafka.resume()
    assert summary(store().load(_ID, [0])) == {0: (2, 1)}
    mine.write(snapshot(3))
    assert summary(store().load(_ID, [0])) == {0: (3, 2)}
