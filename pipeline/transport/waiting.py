"""Queue of fetched records that wait for their micro-batch."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from pipeline.transport.micro_batch import Record


class WaitingRecords:
    """Records of one partition that wait, in the order of their offsets.

    Args:
        next_offset: first offset that is to be fetched.
    """

    def __init__(self, next_offset: int) -> None:
        self.next_offset = next_offset
        """Offset after all that was fetched; offsets before it that have no record here are done, or have none."""
        self._records: list[Record] = []
        self._sizes: list[int] = []
        self._newest_at = 0.0  # when the last record was added
        self.size = 0
        """Bytes of keys, values and headers."""
        self.oldest_at = 0.0
        """Time at which the first record was added; only while records wait."""

    def __len__(self) -> int:
        return len(self._records)

    @property
    def first_offset(self) -> int:
        """Offset of the first record; only while records wait."""
        return self._records[0].offset

    def add(self, records: Sequence[Record], now: float, next_offset: int) -> None:
        """Append records that were fetched now; all before `next_offset` is fetched, also without a record."""
        self.next_offset = max(self.next_offset, next_offset, records[-1].offset + 1 if records else 0)
        if not records:
            return
        if not self._records:
            self.oldest_at = now
        self._newest_at = now
        sizes = [
            len(record.key or b"") + len(record.value or b"") + (_size_of(record.headers) if record.headers else 0)
            for record in records
        ]
        self._records.extend(records)
        self._sizes.extend(sizes)
        self.size += sum(sizes)

    def take(self, rows: int) -> tuple[list[Record], int]:
        """Remove the first records, and return them and their bytes."""
        records, size = self._records[:rows], sum(self._sizes[:rows])
        del self._records[:rows], self._sizes[:rows]
        self.size -= size
        self.oldest_at = self._newest_at  # there was room until the last fetch, so the rest came with it
        return records, size

    def rows_below(self, offset: int, most: int | None = None) -> int:
        """Count the records below an offset, up to `most`."""
        return bisect_left(self._records, offset, hi=most, key=lambda record: record.offset)

    def rows_within(self, rows: int, max_bytes: int) -> int:
        """Count how many of the first `rows` records fit into `max_bytes`; at least one."""
        if self.size <= max_bytes:
            return rows
        return max(1, sum(1 for total in accumulate(self._sizes[:rows]) if total <= max_bytes))

    def clear(self) -> None:
        """Remove all records."""
        self._records.clear()
        self._sizes.clear()
        self.size = 0


def _size_of(headers: Sequence[tuple[str, bytes | None]]) -> int:
    return sum(len(name) + len(value or b"") for name, value in headers)
