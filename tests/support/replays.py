"""A log of ui_events with committed offsets, for tests of replays."""

from collections.abc import Iterable, Sequence
from typing import Any

from clickhouse_driver import Client

from pipeline.catalog import load_catalog
from pipeline.clickhouse.client import connect
from pipeline.config import Settings
from pipeline.kafka.topics import TopicAdmin
from pipeline.producer.encode import Encoder
from pipeline.rollup.audit import Audit
from pipeline.rollup.horizon import Horizon
from pipeline.rollup.store import SnapshotStore
from pipeline.rollup.verify import verify
from support.events import as_stored, bag, events
from support.kafka_topic import Topic
from support.processes import prepare
from support.session_stats import HOUR_MS, snapshot_at_rest

PARTITIONS = 2
_FACTS = "SELECT count(), uniqExact(_topic_id, _partition, _offset) FROM {table}"


class UiEvents:
    """Log and table of ui_events; this process stands for the worker.

    Args:
        settings: a broker and a ClickHouse of which the test has topics and a database.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.family = prepare(settings).family("ui_events")
        self.topic = Topic.existing(settings.kafka, self.family.topic.name, PARTITIONS)
        self.events: list[dict[str, Any]] = []
        self._ends = dict.fromkeys(range(PARTITIONS), 0)

    def produce(self, count: int, *, committed: bool = True) -> None:
        """Produce the first events of the sample that aren't in the log yet, to all partitions in turn; commit."""
        new = events("ui_events", len(self.events) + count)[len(self.events) :]
        self.events += new
        encoder = Encoder(self.family)
        for number in range(PARTITIONS):
            self.send([encoder.encode(event).value for event in new[number::PARTITIONS]], number)
        if committed:
            self.commit()

    def send(self, values: Sequence[bytes | None], partition: int = 0) -> None:
        """Produce values of any bytes."""
        self.topic.produce(values, partition)
        self._ends[partition] += len(values)

    def commit(self, metadata: str = "") -> None:
        """Commit the ends of the log for the worker's group."""
        for number, end in self._ends.items():
            self.topic.commit(end, metadata, number)

    @property
    def ends(self) -> dict[int, int]:
        """End of each partition's log."""
        return dict(self._ends)

    def stored(self, table: str = "ui_events") -> tuple[int, int]:
        """Return the number of rows, and of different coordinates."""
        with self.client() as client:
            rows, different = client.execute(_FACTS.format(table=table))[0]
        return rows, different

    def complete(self, rows: Iterable[dict[str, Any]]) -> bool:
        """Tell whether rows are those of all events, each once."""
        return bag(rows) == bag(as_stored(self.family, event) for event in self.events)

    def common(self, rows: Iterable[dict[str, Any]]) -> int:
        """Return the number of rows that are as a worker stores them."""
        return (bag(rows) & bag(as_stored(self.family, event) for event in self.events)).total()

    def client(self) -> Client:
        """Return a connection to the test's database."""
        return connect(self.settings.clickhouse)


def close_hours(log: UiEvents, before: int) -> None:
    """Have the rollup closed all hours before this one."""
    rollup = load_catalog(log.settings).rollup
    assert rollup
    topic_id = TopicAdmin(log.settings.kafka).ids([log.topic.name])[log.topic.name]
    store = SnapshotStore(log.settings.kafka, rollup.state)
    for number in range(PARTITIONS):
        # Behind the end of the log, or the broker's clock would close all hours.
        store.write(snapshot_at_rest(topic_id, number, log.ends[number] - 1, before * HOUR_MS))


def differences(log: UiEvents) -> int:
    """Return the number of rows of session_stats that aren't in line with ui_events."""
    with log.client() as client:
        return verify(Audit(client, "ui_events"), Horizon(float("inf"))).found.total()
