"""Rates in words; a run that was too short for one has none."""

_SHORTEST_SECONDS = 1.0


def rate_of(count: float, seconds: float) -> float | None:
    """Return the number per second; None below a second, where it would say more about the start than about the run."""
    return count / seconds if seconds >= _SHORTEST_SECONDS else None


def rate_text(count: float, seconds: float, unit: str) -> str:
    """Return `, 1,234 unit/s`, to follow other facts; empty if the run was too short."""
    rate = rate_of(count, seconds)
    return "" if rate is None else f", {rate:,.0f} {unit}/s"
