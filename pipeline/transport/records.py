"""Reads a fetched batch that aiokafka can't: Kafka's brokers take names of headers that aren't UTF-8.

Its C code raises at such a name, which would end every worker that gets the record, for as long as the topic keeps it.
"""

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy


class KeptRecords(_MemoryRecordsPy):  # type: ignore[misc] # (said to be final, for the type checker alone)
    """The records of a fetch, batch by batch, and the bytes of the batch that was given last."""

    batch_bytes: memoryview | None = None

    def next_batch(self) -> Any:
        """The next batch, read by aiokafka's C code."""
        self.batch_bytes = self._next_slice
        return super().next_batch()

    def read_leniently(self) -> Iterator[Any]:
        """The records of that batch; what isn't UTF-8 in the name of a header is escaped."""
        batch = _DefaultRecordBatchPy(self.batch_bytes)
        batch._maybe_uncompress()  # noqa: SLF001 (there is no other way to put our reading of names in its place)
        batch._buffer = _Lenient(batch._buffer)  # noqa: SLF001
        yield from batch


class _Lenient(bytearray):
    """Bytes of which any part can be decoded."""

    def __getitem__(self, at: Any) -> Any:
        part = super().__getitem__(at)
        return _Lenient(part) if isinstance(part, bytearray) else part

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)


fetcher.MemoryRecords = KeptRecords  # the fetcher takes no other
