"""Micro-batches of one partition that are in flight, and the offset up to which all are done."""

from collections import deque

from pipeline.transport.micro_batch import MicroBatch


class InFlight:
    """Micro-batches that are cut and not done, in the order of their offsets.

    Args:
        done: offset of the first record that isn't done.
    """

    def __init__(self, done: int) -> None:
        self.done = done
        self._batches: deque[MicroBatch] = deque()
        self._acked: set[int] = set()  # first offsets of acknowledged micro-batches behind one that isn't

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def held_bytes(self) -> int:
        """Bytes of their records, as they were fetched."""
        return sum(batch.held_bytes for batch in self._batches)

    @property
    def ends(self) -> tuple[int, ...]:
        """Last offset of each range that isn't replayed."""
        return tuple(batch.last for batch in self._batches if not batch.replayed)

    def add(self, batch: MicroBatch) -> None:
        """Put a micro-batch in flight, after all others."""
        self._batches.append(batch)

    def awaits(self, batch: MicroBatch) -> bool:
        """Tell whether a micro-batch is in flight and not acknowledged."""
        return batch in self._batches and batch.first not in self._acked

    def finish(self, batch: MicroBatch) -> None:
        """Note that a micro-batch is acknowledged; move `done` past all that have no unacknowledged one before them."""
        self._acked.add(batch.first)
        while self._batches and self._batches[0].first in self._acked:
            first = self._batches.popleft()
            self._acked.discard(first.first)
            if not first.replayed:
                self.done = first.last + 1

    def close(self) -> None:
        """Leave all micro-batches to the next owner."""
        for batch in self._batches:
            batch.decoded.abandon()
        self._batches.clear()
        self._acked.clear()
