"""Oracle of a recovery check: the offsets of a moment from the records' own timestamps, and counts of tables."""

from dataclasses import dataclass

import numpy as np
from replaying.world import World

from pipeline.columns import Ints
from pipeline.kafka.offsets import TopicReader, offset_of

_ROOM = 1_000_000


@dataclass(frozen=True, slots=True)
class Judged:
    """A recovered table, beside the log and the live table."""

    lost: int
    doubled: int
    too_new: int
    same: bool
    """True if its rows have the content of the live table's below the offsets."""


class Timestamps:
    """Timestamps of all records by partition, read from the log; it doesn't ask the broker for offsets of a time.

    Args:
        world: servers.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._times: dict[int, Ints] = {}
        self._ends: dict[int, int] = {}

    def ends_at(self, moment_ms: int) -> dict[int, int]:
        """Return the first offset of each partition whose record isn't before a moment, which has passed."""
        with TopicReader(self._world.settings.kafka, self._world.family.topic.name) as reader:
            for number, log in reader.ranges().items():
                self._read(reader, number, log.stop)
        ends = {}
        for number, end in self._ends.items():
            late = np.flatnonzero(self._times[number][:end] >= moment_ms)
            ends[number] = int(late[0]) if len(late) else end
        return ends

    def _read(self, reader: TopicReader, number: int, stop: int) -> None:
        begin = self._ends.get(number, 0)
        times = self._times.setdefault(number, np.zeros(_ROOM, np.int64))
        for messages in reader.batches(number, range(begin, stop)):
            last = offset_of(messages[-1])
            while last >= len(times):
                times = self._times[number] = np.append(times, np.zeros(_ROOM, np.int64))
            for message in messages:
                times[offset_of(message)] = message.timestamp()[1]
        self._ends[number] = stop


def judge(world: World, database: str, ends: dict[int, int]) -> Judged:
    """Compare a recovered ui_events with offsets, and with the live table's rows below them."""
    below = " OR ".join(f"(_partition = {number} AND _offset < {end})" for number, end in ends.items())
    content = "(count(), sum(cityHash64(*, _topic_id, _partition, _offset)))"
    rows, different, too_new, found = world.query(
        f"SELECT count(), uniqExactIf((_partition, _offset), {below}), countIf(NOT ({below})), {content} "
        f"FROM `{database}`.ui_events"
    )
    expected = world.query(f"SELECT {content} FROM ui_events WHERE {below}")[0]
    doubled = rows - too_new - different
    return Judged(sum(ends.values()) - different, doubled, too_new, found == expected)
