"""Results of runs, their medians over rounds, and ratios of two contenders."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one contender."""

    name: str
    rows: int
    seconds: float
    """Time from the first poll to the last row."""
    total_seconds: float
    """Time from the start of the process to the last row."""
    server_cpu_seconds: float
    """CPU time of ClickHouse during `seconds`, for inserts and all its other work."""
    cpu_seconds: float | None
    """CPU time of the contender's processes during `seconds`; None if ClickHouse does the work."""
    peak_rss_bytes: int | None
    load: float = 0.0
    """Load average of the machine over the minute before the run."""
    other_cores: float = 0.0
    """Cores that processes beside the benchmark used during `seconds`."""
    later_rss_bytes: int | None = None
    """Resident memory a while after the last row; None if nobody asked for it."""

    @property
    def rows_per_s(self) -> float:
        """Throughput in rows per second."""
        return self.rows / self.seconds

    @property
    def cpu_us_per_row(self) -> float | None:
        """CPU time of the contender for one row, in µs."""
        return None if self.cpu_seconds is None else self.cpu_seconds / self.rows * 1e6

    @property
    def server_cpu_us_per_row(self) -> float:
        """CPU time of ClickHouse for one row, in µs."""
        return self.server_cpu_seconds / self.rows * 1e6

    @property
    def rss_mb(self) -> float | None:
        """Peak memory of the contender's processes, in 10^6 bytes."""
        return None if self.peak_rss_bytes is None else self.peak_rss_bytes / 1e6

    @property
    def later_rss_mb(self) -> float | None:
        """Memory of the contender's processes a while after the last row, in 10^6 bytes."""
        return None if self.later_rss_bytes is None else self.later_rss_bytes / 1e6


Figure = Callable[[Result], float | None]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median of some rounds, with the least and the greatest value."""

    median: float
    least: float
    greatest: float


@dataclass(frozen=True, slots=True)
class Runs:
    """All runs of one contender with one workload, in the order of their rounds; figures are medians."""

    results: tuple[Result, ...]

    def spread(self, figure: Figure) -> Spread | None:
        """Median and range of a figure; None if a run doesn't have it."""
        return _spread([figure(result) for result in self.results])

    def _median(self, figure: Figure) -> float | None:
        spread = self.spread(figure)
        return spread.median if spread else None

    @property
    def rows_per_s(self) -> float:
        """Throughput in rows per second."""
        return self._median(lambda result: result.rows_per_s) or 0.0

    @property
    def cpu_us_per_row(self) -> float | None:
        """CPU time of the contender for one row, in µs."""
        return self._median(lambda result: result.cpu_us_per_row)

    @property
    def server_cpu_us_per_row(self) -> float:
        """CPU time of ClickHouse for one row, in µs."""
        return self._median(lambda result: result.server_cpu_us_per_row) or 0.0

    @property
    def rss_mb(self) -> float | None:
        """Peak memory of the contender's processes, in 10^6 bytes."""
        return self._median(lambda result: result.rss_mb)

    @property
    def total_seconds(self) -> float:
        """Time from the start of the process to the last row."""
        return self._median(lambda result: result.total_seconds) or 0.0


def ratio(above: Runs, below: Runs, figure: Figure) -> Spread | None:
    """Median and range of the ratios of a figure, one for each round: both had the same load of the machine then.

    None if a run of either doesn't have the figure.
    """
    pairs = [(figure(one), figure(other)) for one, other in zip(above.results, below.results, strict=False)]
    return _spread([one / other if one is not None and other else None for one, other in pairs])


def _spread(values: list[float | None]) -> Spread | None:
    there = [value for value in values if value is not None]
    if not there or len(there) < len(values):
        return None
    return Spread(median(there), min(there), max(there))
