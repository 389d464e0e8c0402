"""The partitions that a worker has, in words."""

from collections.abc import Collection, Iterable
from itertools import pairwise


def assigned_topics(assigned: Collection[tuple[str, int]]) -> str:
    """Return topics and their partitions as one text: `chimera.episodes 0, chimera.ui_events 0-3 6`.

    Args:
        assigned: topic and number of each partition.
    """
    topics = sorted({topic for topic, _ in assigned})
    return ", ".join(f"{topic} {_runs(number for name, number in assigned if name == topic)}" for topic in topics)


def _runs(numbers: Iterable[int]) -> str:
    """Return numbers with runs of them as `first-last`."""
    ordered = sorted(numbers)
    begins = [ordered[0], *(after for before, after in pairwise(ordered) if after != before + 1)]
    ends = [*(before for before, after in pairwise(ordered) if after != before + 1), ordered[-1]]
    return " ".join(
        str(first) if first == last else f"{first}-{last}" for first, last in zip(begins, ends, strict=True)
    )
