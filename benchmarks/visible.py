"""Time at which each record of a topic became visible in its table, by watching the table's new parts."""

import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from clickhouse_driver import Client

_PARTS = """
SELECT name, partition_id, min_block_number, max_block_number FROM system.parts
WHERE database = currentDatabase() AND table = 'ui_events' AND active
"""
_RANGES = """
SELECT _part, _partition, min(_offset), max(_offset) FROM ui_events WHERE _part IN %(names)s GROUP BY _part, _partition
"""

Times = np.ndarray[tuple[int], np.dtype[np.int64]]
"""Times by offset, in ns of the monotonic clock; 0 for a record that isn't visible."""


class Watch:
    """Watch over the new parts of `ui_events`. A query of the table reads only what it hasn't read before.

    Args:
        client: of the table's database.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._names: set[str] = set()
        self._blocks: set[tuple[str, int]] = set()
        self._seen: dict[int, list[tuple[int, int, int]]] = defaultdict(list)

    def look(self) -> bool:
        """Note the ranges of offsets that have become visible since the last look.

        Returns:
            False if a part was merged before its ranges were read; then look again.
        """
        parts = self._client.execute(_PARTS)
        now = time.monotonic_ns()
        fresh = dict[str, set[tuple[str, int]]]()
        for name, day, first, last in parts:
            blocks = {(day, number) for number in range(first, last + 1)}
            if blocks <= self._blocks:  # a merge of known parts is nothing new
                self._names.add(name)
            elif name not in self._names:
                fresh[name] = blocks
        if fresh:
            for name, partition, first, last in self._client.execute(_RANGES, {"names": tuple(fresh)}):
                self._seen[partition].append((first, last, now))
                self._names.add(name)  # one that was merged meanwhile isn't known yet
                self._blocks |= fresh[name]
        return fresh.keys() <= self._names

    def times(self, records: Sequence[int]) -> list[Times]:
        """Times of all records, by partition; `records` are their numbers."""
        result = []
        for partition, count in enumerate(records):
            times = np.zeros(count, np.int64)
            for first, last, now in self._seen[partition]:
                times[first : last + 1] = np.where(times[first : last + 1], times[first : last + 1], now)
            result.append(times)
        return result
