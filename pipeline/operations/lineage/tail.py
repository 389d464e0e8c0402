"""Records of a topic as they come, read beside the workers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.config import KafkaSettings
from pipeline.errors import HaltError
from pipeline.kafka.failures import check_connection, missing_topic
from pipeline.kafka.offsets import TopicReader
from pipeline.kafka.topics import TopicAdmin
from pipeline.transport.adapter.log_reader import LogReader

_NO_END = 2**62  # above every offset


@dataclass(frozen=True, slots=True)
class Tail:
    """A topic's log from now on, or from a time on."""

    topic: str
    topic_id: str
    """Kafka's id of the topic, as its tools write it."""
    starts: dict[int, range]
    """Offsets to read, by partition; without an end if it follows the log."""
    reader: LogReader

    def records(self) -> Iterator[tuple[int, Any]]:
        """Yield partition and record, those of each partition in its order.

        Raises:
            HaltError: the log is damaged, or Kafka refuses.
            UnavailableError: Kafka doesn't answer.
        """
        for stretch in self.reader.read({number: [offsets] for number, offsets in self.starts.items()}):
            if stretch.damage:
                raise stretch.damage
            for record in stretch.records:
                yield stretch.partition, record


@contextmanager
def tail_of(settings: KafkaSettings, topic: str, since: datetime | None, *, follow: bool) -> Iterator[Tail]:
    """Open a topic's log; it joins no group and commits nothing.

    Args:
        settings: the broker.
        topic: name of the topic.
        since: time of the first record in Kafka; None for the records that come from now on.
        follow: go on with the records that come; otherwise the log as it is now is read.

    Raises:
        HaltError: there is no such topic, or Kafka refuses.
        UnavailableError: Kafka doesn't answer.
    """
    check_connection(settings)
    ids = TopicAdmin(settings).ids([topic])
    if topic not in ids:
        raise HaltError(missing_topic(settings, topic))
    with TopicReader(settings, topic, only_committed=True) as log:
        ends = {number: offsets.stop for number, offsets in log.ranges().items()}
        starts = ends if since is None else ends | log.first_since(round(since.timestamp() * 1000), ends)
    ranges = {number: range(start, _NO_END if follow else max(start, ends[number])) for number, start in starts.items()}
    with LogReader(settings, topic, silence_seconds=float("inf")) as reader:
        yield Tail(topic, ids[topic], ranges, reader)
