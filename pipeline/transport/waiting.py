"""Queue of fetched records that wait for their micro-batch."""

from collections import deque
from collections.abc import Iterable
from itertools import takewhile

from pipeline.transport.records import LogPart


class WaitingRecords:
    """Parts of the log of one partition that wait, in the order of their offsets.

    Args:
        next_offset: first offset that is to be fetched.
    """

    def __init__(self, next_offset: int) -> None:
        self.next_offset = next_offset
        """Offset after all that was fetched; offsets before it that have no record here are done, or have none."""
        self._parts: deque[LogPart] = deque()
        self._rows = 0
        self._newest_at = 0.0  # when the last record was added
        self.size = 0
        """Bytes of the records when they are read."""
        self.held_bytes = 0
        """Bytes that they take in memory."""
        self.oldest_at = 0.0
        """Time at which the first record was added; only while records wait."""

    def __len__(self) -> int:
        return self._rows

    @property
    def first_offset(self) -> int:
        """Offset of the first record; only while records wait."""
        return self._parts[0].first_offset

    def add(self, parts: Iterable[LogPart], now: float, next_offset: int) -> None:
        """Append records that were fetched now; all before `next_offset` is fetched, also without a record."""
        self.next_offset = max(self.next_offset, next_offset)
        for part in parts:
            if not self._rows:
                self.oldest_at = now
            self._newest_at = now
            self._parts.append(part)
            self._count(part, 1)
            self.next_offset = max(self.next_offset, part.last_offset + 1)

    def take(self, rows: int) -> list[LogPart]:
        """Remove the first records, and return them."""
        taken = []
        while rows:
            part = self._parts.popleft()
            self._count(part, -1)
            if len(part) > rows:
                rest = part.sliced(rows, len(part))
                self._parts.appendleft(rest)
                self._count(rest, 1)
                part = part.sliced(0, rows)
            rows -= len(part)
            taken.append(part)
        self.oldest_at = self._newest_at  # there was room until the last fetch, so the rest came with it
        return taken

    def rows_below(self, offset: int, most: int | None = None) -> int:
        """Count the records below an offset, up to `most`."""
        below = sum(part.rows_below(offset) for part in takewhile(lambda part: part.first_offset < offset, self._parts))
        return below if most is None else min(below, most)

    def rows_within(self, rows: int, max_bytes: int) -> int:
        """Count how many of the first `rows` records fit into `max_bytes`; at least one."""
        if self.size <= max_bytes:
            return rows
        fit, left = 0, max_bytes
        for part in self._parts:
            fit, left = fit + part.rows_within(left), left - part.size
            if fit >= rows or left < 0:
                break
        return min(rows, max(1, fit))

    def clear(self) -> None:
        """Remove all records."""
        self._parts.clear()
        self._rows = self.size = self.held_bytes = 0

    def _count(self, part: LogPart, sign: int) -> None:
        self._rows += sign * len(part)
        self.size += sign * part.size
        self.held_bytes += sign * part.held_bytes
