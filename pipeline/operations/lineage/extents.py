"""Extents of a topic's logs: the offsets of each partition that are compared."""

from dataclasses import dataclass

from pipeline.catalog import TopicSpec
from pipeline.clickhouse.coordinates import Source
from pipeline.config import KafkaSettings
from pipeline.errors import UnavailableError
from pipeline.kafka.offsets import TopicReader
from pipeline.kafka.topics import TopicAdmin, check_topics_exist


@dataclass(frozen=True, slots=True)
class Extent:
    """Offsets of one partition below the committed offset, as far as the log still holds them."""

    source: Source
    begin: int
    """Offset of the log's first record; retention has deleted all before it."""
    committed: int
    """Offset that the group has committed, and 0 without a commit: live ingest never touches offsets below it again."""

    @property
    def offsets(self) -> range:
        """Offsets that are compared."""
        return range(self.begin, max(self.begin, self.committed))


def read_extents(settings: KafkaSettings, topic: TopicSpec, reader: TopicReader) -> tuple[Extent, ...]:
    """Return the extent of each partition, in their order.

    Args:
        settings: the broker, and the group whose commits count.
        topic: a family's topic.
        reader: of this topic.

    Raises:
        UnavailableError: the broker doesn't answer, or a committed offset is behind the end of the log.
        HaltError: the broker refuses, or the topic is missing.
    """
    ids = TopicAdmin(settings).ids([topic.name])
    check_topics_exist(settings, [topic], ids)
    numbers = reader.partitions()
    committed = reader.committed(numbers)  # before the ends, which move on while a worker commits
    extents = []
    for number, log in reader.ranges(numbers).items():
        at = committed[number] or 0
        if at > log.stop:
            raise UnavailableError(
                f"group {settings.group_id}, topic {topic.name}, partition {number}: committed offset {at}, but the "
                f"log ends at {log.stop}: the topic was created anew, or has lost its end; run the worker, which finds "
                "out, then try again"
            )
        extents.append(Extent(Source.of(ids[topic.name], number), log.start, at))
    return tuple(extents)
