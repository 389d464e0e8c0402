"""Metrics of a family's micro-batches; each is counted once for a whole micro-batch, never for a record."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import ParamSpec, TypeVar

import numpy as np

from pipeline import metrics
from pipeline.columns import Rejection, Rows
from pipeline.metrics import Stage
from pipeline.transport.micro_batch import MicroBatch

P = ParamSpec("P")
T = TypeVar("T")


class FamilyMetrics:
    """Counts what happens to the micro-batches of a family.

    Args:
        family: name of the family.
    """

    def __init__(self, family: str) -> None:
        self._family = family
        self.in_flight = metrics.IN_FLIGHT.labels(family)
        """Micro-batches that are being processed."""
        self.done = metrics.MICRO_BATCHES.labels(family)
        """Micro-batches that are done."""
        self.reject_brake = metrics.REJECT_RATE_HIGH.labels(family)
        """1 while the reject rate is above its limit."""
        self.newest_event_ms: int | None = None
        """Time of the newest stored event, in milliseconds since 1970."""
        self._decode = metrics.STAGE_SECONDS.labels(family, Stage.DECODE)
        self._sanitise = metrics.STAGE_SECONDS.labels(family, Stage.SANITISE)
        self._thread = threading.local()
        self.reject_brake.set(0)

    def delivered(self, batch: MicroBatch) -> None:
        """Count the records of a micro-batch that was delivered."""
        metrics.RECORDS_CONSUMED.labels(self._family).inc(len(batch))
        metrics.BYTES_CONSUMED.labels(self._family).inc(batch.size)

    def stored(self, rows: Rows) -> None:
        """Count rows that were inserted."""
        metrics.ROWS_INSERTED.labels(self._family).inc(len(rows))
        metrics.ROWS_PER_INSERT.labels(self._family).observe(len(rows))
        self.newest_event_ms = max(self.newest_event_ms or 0, int(np.asarray(rows.columns["ts"]).max()))

    def rejected(self, rejections: Sequence[Rejection]) -> None:
        """Count rejected records by reason."""
        for reason, count in Counter(rejection.reason for rejection in rejections).items():
            metrics.RECORDS_REJECTED.labels(self._family, reason.value).inc(count)

    def decode(self, decode: Callable[[], T]) -> T:
        """Call a function that decodes; what it spends in `sanitising` functions counts as sanitising alone."""
        self._thread.seconds = 0.0  # the sanitiser runs in the thread of the decoder
        began = perf_counter()
        decoded = decode()
        self._decode.observe(perf_counter() - began - self._thread.seconds)
        self._sanitise.observe(self._thread.seconds)
        return decoded

    def sanitising(self, sanitise: Callable[P, T]) -> Callable[P, T]:
        """Wrap a function that sanitises, so that its duration is known."""

        def measured(*args: P.args, **kwargs: P.kwargs) -> T:
            began = perf_counter()
            try:
                return sanitise(*args, **kwargs)
            finally:
                self._thread.seconds = getattr(self._thread, "seconds", 0.0) + perf_counter() - began

        return measured
