"""The reorder buffer: events wait in it until the watermark has passed them."""

from collections.abc import Iterable
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Ints, Mask

Ids = NDArray[np.void]
"""Session ids, V16: big-endian bytes."""

NEVER = 2**63 - 1
"""Time of the oldest event of an empty buffer."""


class Waiting(NamedTuple):
    """Events that aren't in a window yet: columns of one length."""

    session_id: Ids
    ts: Ints
    event_type: NDArray[np.uint8]
    latency_ms: NDArray[np.uint32]

    @classmethod
    def none(cls) -> Self:
        """Return columns without events."""
        return cls(np.empty(0, "V16"), np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.uint32))

    @classmethod
    def join(cls, parts: Iterable["Waiting"]) -> Self:
        """Join the events of all parts in their order."""
        return cls(*map(np.concatenate, zip(*parts, strict=True)))

    def pick(self, rows: Mask | NDArray[np.intp]) -> "Waiting":
        """Return the selected events."""
        return Waiting(self.session_id[rows], self.ts[rows], self.event_type[rows], self.latency_ms[rows])


class Reorder:
    """Buffer for the events of one partition, in log order.

    Args:
        events: the first events.
    """

    added: int
    """Number of events added since the last `take`."""
    oldest_ms: int
    """Time of the earliest event; NEVER if the buffer is empty."""

    def __init__(self, events: Waiting) -> None:
        self._keep(events)

    def __len__(self) -> int:
        return self._kept + self.added

    @property
    def enough(self) -> bool:
        """True if more events were added than were left: `take` looks at all events, so it must be rare."""
        return self.added >= self._kept

    def add(self, events: Waiting) -> None:
        """Append events."""
        if len(events.ts):
            self._parts.append(events)
            self.added += len(events.ts)
            self.oldest_ms = min(self.oldest_ms, int(events.ts.min()))

    def take(self, before_ms: int) -> Waiting:
        """Remove and return the events before that time."""
        events = self.all()
        taken = events.ts < before_ms
        self._keep(events.pick(~taken))
        return events.pick(taken)

    def all(self) -> Waiting:
        """Return all events; the columns never change."""
        return Waiting.join(self._parts)

    def _keep(self, events: Waiting) -> None:
        self._parts = [events]
        self._kept = len(events.ts)
        self.added = 0
        self.oldest_ms = events.ts.min(initial=NEVER).item()
