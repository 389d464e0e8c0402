"""Files of records: their identity, and their records as stretches like those of a log."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple, Self
from uuid import NAMESPACE_URL, UUID, uuid5

from pipeline.operations.lineage.sources import SourceError
from pipeline.transport.stretches import LogStretch, cut

_MOST_PENDING = 1_000  # records
_MOST_PENDING_BYTES = 4 * 1024 * 1024


class FileRecord(NamedTuple):
    """A record of a file, as chunks take it."""

    offset: int
    value: bytes | None
    timestamp: int | None
    """Kafka's timestamp in ms; None if the file has none."""


class Unchanged(NamedTuple):
    """Facts about a file that change with its content."""

    size: int
    modified_ns: int

    @classmethod
    def of(cls, file: BufferedReader) -> Self:
        """Return the facts of an open file."""
        found = os.fstat(file.fileno())
        return cls(found.st_size, found.st_mtime_ns)


@contextmanager
def opened(path: Path, unchanged: Unchanged | None = None) -> Iterator[BufferedReader]:
    """Open a file to read it from its beginning.

    Args:
        path: the file.
        unchanged: facts from before, which must hold still.

    Raises:
        SourceError: it can't be read, isn't a regular file, or has changed.
    """
    try:
        with path.open("rb") as file:
            if not S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SourceError(f"{path}: expected a regular file, which can be read several times")
            if unchanged not in (None, Unchanged.of(file)):
                raise SourceError(f"{path}: it was changed since the replay began; run the command again")
            yield file
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from None


def file_id(path: Path) -> UUID:
    """Return the topic id that stands for a file: a UUID of version 5 of its content.

    Kafka's topic ids are random, of version 4, so none equals it.

    Raises:
        SourceError: the file can't be read.
    """
    with opened(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return uuid5(NAMESPACE_URL, f"urn:sha256:{digest}")


def stretches(
    records: Iterator[tuple[int, FileRecord]], ranges: Mapping[int, Sequence[range]], wanted: Callable[[], bool]
) -> Iterator[LogStretch]:
    """Yield records as stretches that cover the ranges.

    Args:
        records: partition and record; those of each partition by ascending offset.
        ranges: ascending ranges that don't overlap, by partition.
        wanted: False to end early.
    """
    left = {number: deque(filter(len, some)) for number, some in ranges.items()}
    pending, count, size = dict[int, list[FileRecord]](), 0, 0

    def flushed() -> Iterator[LogStretch]:
        for number, some in pending.items():
            yield from cut(left[number], number, some, some[-1].offset + 1)
        pending.clear()

    for number, record in records:
        if number not in left:
            continue
        pending.setdefault(number, []).append(record)
        count, size = count + 1, size + len(record.value or b"")
        if count >= _MOST_PENDING or size >= _MOST_PENDING_BYTES:
            yield from flushed()
            count = size = 0
            if not wanted() or not any(left.values()):
                return
    yield from flushed()
    for number, some in left.items():
        if some:
            yield from cut(some, number, (), some[-1].stop)
