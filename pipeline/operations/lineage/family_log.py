"""Log of a family's own topic, below the committed offsets: live ingest is done with these records for good."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property

from pipeline.catalog import Family
from pipeline.clickhouse.coordinates import Source
from pipeline.columns import Ints
from pipeline.config import KafkaSettings, Settings
from pipeline.errors import HaltError
from pipeline.kafka.failures import check_connection
from pipeline.kafka.offsets import TopicReader
from pipeline.kafka.topics import TopicAdmin, check_topics_exist
from pipeline.operations.lineage.lettered import begun_at, read_lettered
from pipeline.operations.lineage.sources import Order, Progress, Surveyed, ignore
from pipeline.operations.lineage.spans import Bound, Span, check_partitions
from pipeline.transport.adapter.log_reader import LogReader
from pipeline.transport.commit_metadata import parse
from pipeline.transport.stretches import LogStretch


class FamilyLog:
    """Log of a family's topic.

    Args:
        settings: broker, group, and limits on the times of events.
        family: owner of the topic.
        reader: of the topic.
    """

    def __init__(self, settings: Settings, family: Family, reader: LogReader) -> None:
        self._settings = settings
        self._kafka = settings.kafka
        self._family = family
        self._reader = reader

    @cached_property
    def topic_id(self) -> str:
        """Kafka's id of the topic, as its clients write it; the one that the first caller got."""
        topic = self._family.topic
        ids = TopicAdmin(self._kafka).ids([topic.name])
        check_topics_exist(self._kafka, [topic], ids)
        return ids[topic.name]

    def survey(self, order: Order, _progress: Progress, /) -> Surveyed:
        """Return the offsets that the log holds, that were asked for, and that are committed.

        Raises:
            ConfigError: a bound names a partition that the topic lacks.
            UnavailableError: Kafka doesn't answer.
            HaltError: Kafka refuses, or topic or commits aren't as expected.
        """
        check_connection(self._kafka)
        committed = self.committed()
        if order.days and order.begin == Bound():
            order = replace(order, begin=_first_that_may_have(min(order.days), self._settings))
        with TopicReader(self._kafka, self._family.topic.name) as log:
            spans = spans_of(order, self.topic_id, log, committed)
        name = f"topic {self._family.topic.name}"
        return Surveyed(name, spans[0].source.topic_id, spans, own=True, lettered=self.lettered(spans))

    def read(
        self, ranges: Mapping[int, Sequence[range]], wanted: Callable[[], bool] = lambda: True
    ) -> Iterator[LogStretch]:
        """Read ranges of the log; see `RecordSource`."""
        return self._reader.read(ranges, wanted)

    def committed(self) -> dict[int, int]:
        """Return the offsets that the group has committed by now, by partition.

        Raises:
            HaltError, UnavailableError: as `survey`.
        """
        return {number: offset for number, (offset, _) in self._commits().items()}

    def lettered(self, spans: Iterable[Span]) -> dict[int, Ints]:
        """Return the offsets of records within spans that are dead letters by now, by partition.

        Raises:
            HaltError, UnavailableError: as `survey`.
        """
        with TopicReader(self._kafka, self._family.topic.name) as log:
            since = {number: begun_at(log, number, some) for number, some in log.ranges().items()}
        return lettered_within(self._kafka, self._family, spans, lambda span: since[span.source.partition])

    def recorded_ends(self) -> dict[int, int]:
        """Return the offsets behind all ranges that are recorded beside the committed offsets by now, by partition.

        Raises:
            HaltError, UnavailableError: as `survey`.
        """
        return {
            number: max(offset, *(end + 1 for end in ends), 0) for number, (offset, ends) in self._commits().items()
        }

    def _commits(self) -> dict[int, tuple[int, tuple[int, ...]]]:
        """Return the committed offset, and the ends of the ranges in flight, by partition.

        Raises:
            HaltError: a commit is of another topic of this name, so the worker hasn't stored what is below it.
        """
        commits, group = {}, self._kafka.group_id
        for number, commit in self._reader.commits(group).items():
            where = f"group {group}, topic {self._family.topic.name}, partition {number}"
            ranges = parse(commit.metadata, where, commit.offset, self.topic_id)
            if ranges is not None and ranges.topic_id != self.topic_id:
                raise HaltError(
                    f"{where}: the committed offset is of topic id {ranges.topic_id}, but the topic has id "
                    f"{self.topic_id}: it was created anew; expected a group that has consumed this one: run the "
                    "worker first"
                )
            commits[number] = commit.offset, () if ranges is None else ranges.ends
        return commits


def spans_of(
    order: Order, topic_id: str, topic: TopicReader, committed: Mapping[int, int] | None = None
) -> tuple[Span, ...]:
    """Return the offsets of each partition that were asked for and that a log holds.

    Args:
        order: with the bounds.
        topic_id: of the topic, as Kafka's clients write it.
        topic: reader of its log.
        committed: offsets to stay below, by partition, where 0 stands for none; None to read up to the log's end.

    Raises:
        ConfigError: a bound names a partition that the topic lacks.
        HaltError: the log ends before a committed offset.
    """
    numbers = topic.partitions()
    check_partitions((order.begin, order.end), numbers, topic.topic)
    begins, ends = (
        topic.first_since(round(bound.time.timestamp() * 1000), numbers) if bound.time else {}
        for bound in (order.begin, order.end)
    )
    spans = []
    for number, log in topic.ranges(numbers).items():
        limit = log.stop if committed is None else committed.get(number, 0)
        if limit > log.stop:
            raise HaltError(
                f"topic {topic.topic}, partition {number}: committed offset {limit}, but the log ends at {log.stop}; "
                "expected a log that has all committed offsets: was the topic created anew? Run the worker first"
            )
        # After the last record there is none at or after the time: the end of the log stands for it.
        first = order.begin.of(number, begins, 0 if order.begin.time is None else log.stop)
        last = min(order.end.of(number, ends, log.stop), limit)
        offsets = range(max(first, log.start), max(first, log.start, last))
        deleted = len(range(first, min(log.start, last)))
        spans.append(Span(Source.of(topic_id, number), offsets, deleted))
    return tuple(spans)


def lettered_within(
    kafka: KafkaSettings, family: Family, spans: Iterable[Span], since: Callable[[Span], int]
) -> dict[int, Ints]:
    """Return the offsets of dead-lettered records within spans of the family's topic, by partition.

    Args:
        kafka: the broker.
        family: owner of the dead letters.
        spans: some offsets.
        since: returns the timestamp in ms of the first record of a span.
    """
    lettered = read_lettered(kafka, family, ignore)
    return {span.source.partition: lettered.offsets(span.source.partition, span.offsets, since(span)) for span in spans}


def _first_that_may_have(day: date, settings: Settings) -> Bound:
    """Return the time before which no record has a valid event of this day or of a later one."""
    begins = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return Bound(time=begins - timedelta(seconds=settings.validation.max_ahead_seconds))
