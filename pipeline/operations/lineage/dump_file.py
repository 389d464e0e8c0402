"""Raw dump as a source: rows get the coordinates that their records had in Kafka."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from pipeline.catalog import Catalog, Family
from pipeline.clickhouse.coordinates import Source
from pipeline.columns import Ints
from pipeline.config import KafkaSettings
from pipeline.operations.lineage.dump import DumpedRecord, dumped_records
from pipeline.operations.lineage.family_log import FamilyLog, lettered_within
from pipeline.operations.lineage.files import FileRecord, Unchanged, file_id, opened, stretches
from pipeline.operations.lineage.sources import Order, Progress, SourceError, Surveyed, check_source
from pipeline.operations.lineage.spans import Span
from pipeline.transport.stretches import LogStretch

_PROGRESS_LINES = 10_000


@dataclass(slots=True)
class _Extent:
    """Records of one partition."""

    first: int
    last: int
    since: int
    """Smallest timestamp, ms."""


class DumpFile:
    """Records of one raw dump.

    Args:
        kafka: the broker.
        catalog: topics and their roles.
        path: the file.
        log: log of the family's own topic.
    """

    def __init__(self, kafka: KafkaSettings, catalog: Catalog, path: Path, log: FamilyLog) -> None:
        self._kafka = kafka
        self._catalog = catalog
        self._path = path
        self._log = log
        with opened(path) as file:
            self._unchanged = Unchanged.of(file)

    def survey(self, order: Order, progress: Progress, /) -> Surveyed:
        """Read the whole file, so that nothing of a damaged one is inserted.

        Raises:
            SourceError: the file is damaged, has no records, or has records of several topics or of another role.
            UnavailableError, HaltError: Kafka doesn't answer, refuses, or has no such topics as expected.
        """
        first, extents = self._extents(progress)
        own_topic = first.topic == order.family.topic.name
        if not own_topic:
            check_source(self._catalog, order.family, first.topic)
        own = first.topic_id == self._log.topic_id
        committed = self._log.committed() if own else None
        topic_id = Source.of(first.topic_id, 0).topic_id if first.topic_id else file_id(self._path)
        spans = tuple(_span(topic_id, number, extents[number], committed) for number in sorted(extents))
        return Surveyed(
            f"dump {self._path} of topic {first.topic}",
            topic_id,
            spans,
            own=own,
            lettered=self._lettered(order.family, spans, extents) if own or own_topic else {},
        )

    def read(
        self, ranges: Mapping[int, Sequence[range]], wanted: Callable[[], bool] = lambda: True
    ) -> Iterator[LogStretch]:
        """Read records by their offsets; see `RecordSource`."""
        return stretches(self._records(), ranges, wanted)

    def _records(self) -> Iterator[tuple[int, FileRecord]]:
        with opened(self._path, self._unchanged) as file:
            for _, record in dumped_records(self._path, file):
                yield record.partition, FileRecord(record.offset, record.value, record.timestamp_ms)

    def _extents(self, progress: Progress) -> tuple[DumpedRecord, dict[int, _Extent]]:
        """Return the first record, and the extent of each partition; check the order of all."""
        first, extents = None, dict[int, _Extent]()
        with opened(self._path, self._unchanged) as file:
            for number, record in dumped_records(self._path, file):
                first = first or record
                if number % _PROGRESS_LINES == 0:
                    progress(file.tell(), self._unchanged.size)
                self._check_topic(number, record, first)
                self._extend(number, record, extents)
        if first is None:
            raise SourceError(f"{self._path}: no records; expected a raw dump with at least one")
        return first, extents

    def _check_topic(self, line: int, record: DumpedRecord, first: DumpedRecord) -> None:
        if (record.topic, record.topic_id) != (first.topic, first.topic_id):
            raise SourceError(
                f"{self._path}: line {line}: a record of topic {record.topic} with id {record.topic_id}; expected "
                f"topic {first.topic} with id {first.topic_id}, as in line 1: split the file by topic"
            )

    def _extend(self, line: int, record: DumpedRecord, extents: dict[int, _Extent]) -> None:
        offset, time = record.offset, record.timestamp_ms
        extent = extents.setdefault(record.partition, _Extent(offset, offset - 1, time))
        if offset <= extent.last:
            raise SourceError(
                f"{self._path}: line {line}: offset {offset} of partition {record.partition} comes after offset "
                f"{extent.last}; expected each record once, those of a partition by ascending offset"
            )
        extent.last, extent.since = offset, min(extent.since, time)

    def _lettered(self, family: Family, spans: Sequence[Span], extents: Mapping[int, _Extent]) -> Mapping[int, Ints]:
        return lettered_within(self._kafka, family, spans, lambda span: extents[span.source.partition].since)


def _span(topic_id: UUID, number: int, extent: _Extent, committed: Mapping[int, int] | None) -> Span:
    """Return the span of a partition; records that the workers haven't committed are left to them."""
    end = extent.last + 1
    stop = end if committed is None else max(extent.first, min(end, committed.get(number, 0)))
    return Span(Source(topic_id, number), range(extent.first, stop), 0, ahead=end - stop)
