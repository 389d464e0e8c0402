"""Size of micro-batches: which partitions are fetched from, and which micro-batches are cut before they are complete.

Large inserts cost the server least, and an idle worker helps nobody. So while a place is free, all partitions are
fetched from, and what is worth an insert is cut; while none is, what waits grows, within the memory.
"""

from collections.abc import Mapping
from itertools import islice

from pipeline.transport.broker import TopicPartition
from pipeline.transport.context import Context
from pipeline.transport.micro_batch import MicroBatch

_ENOUGH = 0.1  # part of a micro-batch that is worth an insert while a place is free
_PLENTY = 0.5  # part of the memory


class Filling:
    """Chooses partitions to fetch from, and cuts micro-batches early.

    Args:
        context: assignment and options.
    """

    def __init__(self, context: Context) -> None:
        self._assignment = context.assignment
        self._options = context.options
        self._in_burst = False  # micro-batches were cut early, and more may follow

    def cut_early(self, batches: Mapping[TopicPartition, list[MicroBatch]], now: float, *, more: bool) -> None:
        """Cut what isn't complete, where most waits first, until enough is in flight.

        A place that is free takes what is worth an insert, or anything if memory is short. When all is done and no more
        comes, the rest of the burst doesn't linger.

        Args:
            batches: the active partitions, with the micro-batches that were cut of them; more are added.
            now: time by the transport's clock.
            more: true if the last fetch gave something.
        """
        partitions = self._assignment.partitions
        in_flight = self._in_flight()
        rest = self._in_burst and not more and not in_flight
        anything = rest or self._memory_is_short()
        free = len(batches) if rest else self._options.enough_in_flight - in_flight
        for tp in sorted(batches, key=lambda tp: partitions[tp].waiting.held_bytes, reverse=True):
            partition = partitions[tp]
            if free > 0 and (anything or (partition.filled >= _ENOUGH and not partition.in_flight)):
                cut = list(islice(partition.cut(now, hurry=True), 1))
                batches[tp].extend(cut)
                free -= len(cut)
                self._in_burst |= bool(cut)
        self._in_burst &= not rest

    def to_fetch(self, active: set[TopicPartition]) -> set[TopicPartition]:
        """Return the partitions to fetch from: those without a batch policy, and those with room."""
        partitions = self._assignment.partitions
        others = {tp for tp in active if tp.topic not in self._options.policies}
        held = {tp for tp in active & partitions.keys() if partitions[tp].damage is None}
        if not self._memory_is_short():
            return others | self._to_fill({tp for tp in held if partitions[tp].has_room})
        # A range that is cut again can't be cut short. One such partition at a time fetches on.
        incomplete = sorted(tp for tp in held if partitions[tp].incomplete and not partitions[tp].full)
        return others | set(incomplete[:1])

    def _to_fill(self, partitions: set[TopicPartition]) -> set[TopicPartition]:
        """Return all partitions, or some that can be completed.

        If all filled the memory at the same pace, all micro-batches would be cut small. So while as many as can be
        processed are in flight, and half of the memory is used, the partitions where most waits are completed first.
        One whose micro-batch was cut comes last.
        """
        every = self._assignment.partitions
        room = float(self._options.max_bytes - self._assignment.held_bytes)
        if room > self._options.max_bytes * _PLENTY or self._in_flight() < self._options.enough_in_flight:
            return partitions
        whole = {tp: every[tp].waiting.held_bytes / (every[tp].filled or 1.0) for tp in partitions}
        usual = max(whole.values(), default=0.0)  # bytes of a micro-batch of which nothing waits yet
        chosen: set[TopicPartition] = set()
        for tp in sorted(partitions, key=lambda tp: (-every[tp].waiting.held_bytes, every[tp].waiting.newest_at)):
            room -= (whole[tp] or usual) - every[tp].waiting.held_bytes
            if chosen and room < 0:
                break
            chosen.add(tp)
        return chosen

    def _in_flight(self) -> int:
        return sum(len(each.in_flight) for each in self._assignment.partitions.values())

    def _memory_is_short(self) -> bool:
        return self._assignment.held_bytes >= self._options.max_bytes
