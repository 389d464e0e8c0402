"""Offsets of a rewrite: those whose rows are made anew, and those whose rows are copied; they grow with the commits."""

from collections.abc import Iterable, Mapping
from uuid import UUID

import numpy as np

from pipeline.clickhouse.coordinates import Source
from pipeline.columns import Ints
from pipeline.operations.lineage.family_log import FamilyLog
from pipeline.operations.lineage.plan import ReplayPlan
from pipeline.operations.lineage.spans import Span
from pipeline.transport.stretches import LogStretch

_NONE = np.empty(0, np.int64)


class RewriteOffsets:
    """Offsets of each partition, from the plan's first one up to the committed one.

    Args:
        plan: of the rewrite.
        log: of the family's topic.
    """

    def __init__(self, plan: ReplayPlan, log: FamilyLog) -> None:
        self._log = log
        self._topic_id: UUID = plan.target.topic_id
        self.lettered = dict(plan.target.lettered)
        """Offsets of dead-lettered records by partition, ascending."""
        self.kept: dict[int, list[range]] = {}
        """Offsets whose rows are copied as they are, and that live ingest is done with."""
        self.read: dict[int, list[range]] = {}
        """Offsets whose rows are made anew."""
        self.moved: dict[int, Ints] = {}
        """Offsets of rows that the swap removes, whose records may have a row on another day."""
        # A worker that hasn't committed up to the first offset may store rows below it at any moment: begin at its
        # commit.
        limits = log.committed()
        self.ranges = {span.source.partition: _below(span, limits) for span in plan.spans}
        """All of these offsets, one range of each partition."""

    @property
    def spans(self) -> list[Span]:
        """All offsets, as spans without gaps."""
        return [Span(Source(self._topic_id, number), some, 0) for number, some in self.ranges.items()]

    def advance(self) -> dict[int, range]:
        """Take in what is committed by now, with its dead letters; return the offsets that came in.

        Raises:
            HaltError, UnavailableError: Kafka refuses, or doesn't answer.
        """
        now = self._log.committed()
        added = {number: range(some.stop, max(some.stop, now.get(number, 0))) for number, some in self.ranges.items()}
        if any(added.values()):
            spans = [Span(Source(self._topic_id, number), some, 0) for number, some in added.items()]
            for number, offsets in self._log.lettered(spans).items():
                self.lettered[number] = np.append(self.lettered.get(number, _NONE), offsets)
            self.ranges = {number: range(some.start, added[number].stop) for number, some in self.ranges.items()}
        return added

    def divide(self, deleted: Iterable[LogStretch]) -> None:
        """Set `read` and `kept`.

        Args:
            deleted: stretches that retention deleted before they were read.
        """
        gone = tuple(deleted)
        for number, some in self.ranges.items():
            holes = [range(hole.first, hole.next_offset) for hole in gone if hole.partition == number]
            self.kept[number] = [range(some.start), *holes]
            self.read[number] = _without(some, holes)


def _below(span: Span, limits: Mapping[int, int]) -> range:
    limit = limits.get(span.source.partition, 0)
    return range(min(span.offsets.start, limit), min(span.offsets.stop, limit))


def _without(whole: range, holes: Iterable[range]) -> list[range]:
    """Return the parts of a range that are in none of the holes."""
    parts, start = [], whole.start
    for hole in sorted(holes, key=lambda hole: hole.start):
        parts.append(range(start, hole.start))
        start = max(start, hole.stop)
    return [part for part in (*parts, range(start, whole.stop)) if part]
