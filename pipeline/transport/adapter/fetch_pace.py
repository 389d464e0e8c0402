"""Size and patience of aiokafka's fetch requests: a few large ones while records flow, patient ones while none come.

aiokafka has one fetch under way to each broker, and the broker answers the requests of a connection one after the
other. So the wait of a fetch for partitions without new records delays partitions that have some, and look-ups.
"""

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

_MIN_BYTES = 256 * 1024
_LONGEST_WAIT_MS = 100
_SHORTEST_WAIT_MS = 5
_SHARE_OF_LINGER = 0.25
_IDLE_WAIT_MS_PER_PARTITION = 1  # what a request costs grows with its partitions
_LONGEST_IDLE_WAIT_MS = 500
_IDLE_SECONDS = 1.0


class FetchPace:
    """Sets the bytes and the time that the broker waits for before it answers a fetch.

    While records flow, a fetch waits for 256 KiB, or for what it may get of a partition if that is less, but for no
    longer than a quarter of the shortest linger (5 to 100 ms). After a second without records, a fetch waits for
    the first record, so the record after a pause isn't delayed.

    Args:
        lingers: seconds that records of the topics wait for their micro-batch; none without micro-batches.
        max_bytes: bytes of one partition in an answer, at most: a fetch for one partition never has more to wait for.
        clock: seconds that never go back.
    """

    def __init__(self, lingers: Iterable[float], max_bytes: int, clock: Callable[[], float] = monotonic) -> None:
        shortest = min(lingers, default=None)
        wait_ms = _LONGEST_WAIT_MS if shortest is None else round(shortest * 1000 * _SHARE_OF_LINGER)
        self._flowing = (
            1 if shortest is None else min(_MIN_BYTES, max_bytes),
            min(_LONGEST_WAIT_MS, max(_SHORTEST_WAIT_MS, wait_ms)),
        )
        self._clock = clock
        self._flowed_at = float("-inf")

    def set(self, fetcher: Any, *, got_records: bool, partitions: int) -> None:
        """Set what the next requests of a fetcher wait for.

        Args:
            fetcher: aiokafka's fetcher.
            got_records: True if records have been fetched since the last call.
            partitions: number of partitions that are fetched from.
        """
        now = self._clock()
        if got_records:
            self._flowed_at = now
        if now - self._flowed_at < _IDLE_SECONDS:
            min_bytes, wait_ms = self._flowing
        else:
            patience = partitions * _IDLE_WAIT_MS_PER_PARTITION
            min_bytes, wait_ms = 1, min(_LONGEST_IDLE_WAIT_MS, max(_LONGEST_WAIT_MS, patience))
        fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms = min_bytes, wait_ms  # noqa: SLF001 (no public setting)
