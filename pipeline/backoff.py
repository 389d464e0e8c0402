"""How long to wait before the next attempt at something that failed."""

import random
from collections.abc import Iterator
from itertools import count

_MOST_DOUBLINGS = 30


def pauses(first: float, longest: float) -> Iterator[float]:
    """Seconds, without end: doubling up to the longest, each cut by a random half at most, so that workers spread out.

    Args:
        first: the first pause before the cut, in seconds.
        longest: no pause is longer.
    """
    for doublings in count():
        pause = min(longest, first * 2 ** min(doublings, _MOST_DOUBLINGS))
        yield pause * random.uniform(0.5, 1)  # noqa: S311 (no secret)
