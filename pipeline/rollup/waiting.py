"""The reorder buffer: events wait here until the watermark has passed them."""

from collections.abc import Iterable
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Ints, Mask

Ids = NDArray[np.void]
"""Session ids, V16: big-endian bytes."""


NEVER = 2**63 - 1


class Waiting(NamedTuple):
    """Events that aren't in a window yet, as columns of one length."""

    session_id: Ids
    ts: Ints
    event_type: NDArray[np.uint8]
    latency_ms: NDArray[np.uint32]

    @classmethod
    def none(cls) -> Self:
        """No events."""
        return cls(np.empty(0, "V16"), np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.uint32))

    @classmethod
    def join(cls, parts: Iterable["Waiting"]) -> Self:
        """Those of all parts, one after the other."""
        return cls(*map(np.concatenate, zip(*parts, strict=True)))

    def pick(self, rows: Mask | NDArray[np.intp]) -> "Waiting":
        """Some of them."""
        return Waiting(self.session_id[rows], self.ts[rows], self.event_type[rows], self.latency_ms[rows])


class Reorder:
    """Events of one partition in the order of the log, in parts as they came.

    Args:
        events: those it begins with.
    """

    added: int
    """How many have come since some were taken."""
    oldest_ms: int
    """Time of the earliest; NEVER when none waits."""

    def __init__(self, events: Waiting) -> None:
        self._keep(events)

    def __len__(self) -> int:
        return self._kept + self.added

    @property
    def enough(self) -> bool:
        """Whether more have come than there were: all are looked at when some are taken, so it is done seldom."""
        return self.added >= self._kept

    def add(self, events: Waiting) -> None:
        """Let more events wait."""
        if len(events.ts):
            self._parts.append(events)
            self.added += len(events.ts)
            self.oldest_ms = min(self.oldest_ms, int(events.ts.min()))

    def take(self, before_ms: int) -> Waiting:
        """The events before that time, which don't wait any more."""
        events = self.all()
        taken = events.ts < before_ms
        self._keep(events.pick(~taken))
        return events.pick(taken)

    def all(self) -> Waiting:
        """The events; never changed afterwards."""
        return Waiting.join(self._parts)

    def _keep(self, events: Waiting) -> None:
        self._parts = [events]
        self._kept = len(events.ts)
        self.added = 0
        self.oldest_ms = events.ts.min(initial=NEVER).item()
