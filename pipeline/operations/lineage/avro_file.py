"""Avro container file as a source: its records are partition 0, and a record's offset is its position in the file.

The bytes of each record are handed to the worker's decoder as they are, in Confluent's framing. The schema in the
file's header stands for a registry's, so the same rules resolve it to the family's newest schema.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import fastavro

from pipeline.catalog import Family
from pipeline.clickhouse.coordinates import Source
from pipeline.decode.reference import Reference
from pipeline.decode.strict_walk import MalformedError
from pipeline.operations.lineage.files import FileRecord, Unchanged, file_id, opened, stretches
from pipeline.operations.lineage.sources import Order, Progress, SourceError, Surveyed, ignore
from pipeline.operations.lineage.spans import Span
from pipeline.schema.framing import frame_confluent
from pipeline.schema.resolution import resolve
from pipeline.schema.writer_schema import UnresolvableError, parse_schema
from pipeline.transport.stretches import LogStretch

MAGIC = b"Obj\x01"
_SCHEMA_ID = 0


class AvroFile:
    """Records of one Avro container file.

    Args:
        path: the file.
        family: the family that its records are of.

    Raises:
        SourceError: it has no whole header, or its schema doesn't resolve to the family's newest.
    """

    def __init__(self, path: Path, family: Family) -> None:
        self._path = path
        with opened(path) as file:
            self._unchanged = Unchanged.of(file)
            reader = self._reader(file)
        try:
            self._schema = parse_schema(reader.metadata["avro.schema"])
            resolution = resolve(self._schema, family.schema)
        except UnresolvableError as error:
            raise SourceError(
                f"{path}: its schema can't be resolved to {family.schema.file.name}: {error}; expected a schema of "
                f"{family.name}"
            ) from None
        self._reference = Reference(resolution.writer, resolution.written, resolution.refused)

    def schema(self, schema_id: int) -> Any:
        """Return the file's schema, as a registry does.

        Raises:
            LookupError: it is another id.
        """
        if schema_id != _SCHEMA_ID:
            raise LookupError(f"{self._path} has no schema {schema_id}")
        return self._schema

    def survey(self, _order: Order, progress: Progress, /) -> Surveyed:
        """Read the whole file, so that nothing of a damaged one is inserted.

        Raises:
            SourceError: the file is damaged.
        """
        count = sum(1 for _ in self._records(None, progress))
        topic_id = file_id(self._path)
        span = Span(Source(topic_id, 0), range(count), 0)
        return Surveyed(f"Avro file {self._path}", topic_id, (span,), schemas=self)

    def read(
        self, ranges: Mapping[int, Sequence[range]], wanted: Callable[[], bool] = lambda: True
    ) -> Iterator[LogStretch]:
        """Read records by their positions; see `RecordSource`."""
        records = self._records(ranges.get(0, ()), ignore)
        return stretches(((0, record) for record in records), ranges, wanted)

    def _records(self, ranges: Sequence[range] | None, progress: Progress) -> Iterator[FileRecord]:
        """Yield the records of all blocks, or of those that have some of the ranges."""
        position = 0
        with opened(self._path, self._unchanged) as file:
            for block in self._blocks(file):
                here = range(position, position + block.num_records)
                position = here.stop
                progress(file.tell(), self._unchanged.size)
                if ranges is None or any(some.start < here.stop and here.start < some.stop for some in ranges):
                    yield from self._of_block(block, here)

    def _of_block(self, block: Any, positions: range) -> Iterator[FileRecord]:
        bodies, start = block.bytes_.getvalue(), 0
        for position in positions:
            try:
                end = self._reference.end_of(bodies, start)
            except MalformedError as error:
                raise self._damaged(block.offset, f"record {position}: {error}") from None
            yield FileRecord(position, frame_confluent(_SCHEMA_ID, bodies[start:end]), None)
            start = end
        if start != len(bodies):
            raise self._damaged(block.offset, f"{len(bodies) - start} bytes after the last of its records")

    def _blocks(self, file: BufferedReader) -> Iterator[Any]:
        """Yield the blocks with their content, after decompression."""
        blocks = iter(self._reader(file))
        while True:
            at = file.tell()
            try:
                block = next(blocks, None)
            except OSError:
                raise
            except Exception as error:  # noqa: BLE001 (each codec has exceptions of its own)
                raise self._damaged(at, str(error) or "it ends too early") from None
            if block is None:
                break
            yield block
        if at != self._unchanged.size:  # fastavro's reader in Python takes half of a block's count for the end
            raise self._damaged(at, "it ends too early")

    def _reader(self, file: BufferedReader) -> Any:
        try:
            return fastavro.block_reader(file)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 (damaged headers lead to exceptions of many types)
            raise self._damaged(0, str(error) or "it ends too early", "header") from None

    def _damaged(self, at: int, problem: str, part: str = "block") -> SourceError:
        return SourceError(
            f"{self._path}: damaged, {part} at byte {at}: {problem}; expected a whole Avro container file"
        )
