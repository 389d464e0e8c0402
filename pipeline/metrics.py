"""Metrics of the worker, which its web server serves at /metrics in the form of OpenMetrics.

docs/metrics.md has the same table, and a contract test compares them. Names begin with `chimera_`, units are seconds,
bytes and ratios, and counters end in `_total`. The values of labels are closed sets: families and topics of
topics.yaml, reasons of `pipeline.errors.Reason`, names of errors, stages of `Stage`.
"""

import enum
import platform
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import accumulate
from time import perf_counter

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""Content type of `exposition`, with the version of OpenMetrics and the charset."""

disable_created_metrics()  # type: ignore[no-untyped-call] # a series more for each counter and histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_ROWS = (1, 10, 100, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000)


class Stage(enum.StrEnum):
    """Stage of the way of the records through a worker."""

    FETCH_WAIT = enum.auto()
    DECODE = enum.auto()
    SANITISE = enum.auto()
    INSERT = enum.auto()
    DEAD_LETTERS = enum.auto()
    COMMIT = enum.auto()


ALL_FAMILIES = "all"
"""Value of the label `family` for a stage that serves all families at once."""


class ManyDurations(Collector):
    """A histogram of durations that come by the thousand; that of the client library takes them one by one.

    Args:
        name: of the metric.
        text: its HELP.
        bounds: upper bounds of the buckets in seconds, ascending; there is one more above the last.
    """

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self._name, self._text = name, text
        self._counts, self._seconds = [0] * (len(bounds) + 1), 0.0
        self._lock = threading.Lock()
        REGISTRY.register(self)

    def add(self, counts: Iterable[int], seconds: float) -> None:
        """Add durations: how many are in each bucket, and their sum."""
        with self._lock:
            self._counts = [count + more for count, more in zip(self._counts, counts, strict=True)]
            self._seconds += seconds

    def describe(self) -> list[HistogramMetricFamily]:
        """Return the metric without samples."""
        return [HistogramMetricFamily(self._name, self._text)]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the metric."""
        with self._lock:
            below, seconds = list(accumulate(self._counts)), self._seconds
        buckets = list(zip([*map(floatToGoString, self.bounds), "+Inf"], below, strict=True))
        yield HistogramMetricFamily(self._name, self._text, buckets=buckets, sum_value=seconds)


def exposition() -> bytes:
    """Return all metrics in the form of OpenMetrics."""
    return bytes(generate_latest(REGISTRY))  # type: ignore[no-untyped-call]


BUILD = Info("chimera_build", "Version of the worker and of its Python.")
BUILD.info({"version": version("chimera-pipeline"), "python": platform.python_version()})

RECORDS_CONSUMED = Counter("chimera_records_consumed", "Records delivered in micro-batches.", ["family"])
BYTES_CONSUMED = Counter(
    "chimera_consumed_bytes", "Bytes of keys, values and headers of the delivered records.", ["family"]
)
ROWS_INSERTED = Counter("chimera_rows_inserted", "Rows stored in ClickHouse.", ["family"])
MICRO_BATCHES = Counter("chimera_micro_batches", "Micro-batches that are done: stored, or dead letters.", ["family"])
ROWS_PER_INSERT = Histogram("chimera_rows_per_insert", "Rows of an insert.", ["family"], buckets=_ROWS)
STAGE_SECONDS = Histogram(
    "chimera_stage_seconds",
    "Duration of a stage for a micro-batch, with its retries. Waiting for records and commits are for all families.",
    ["family", "stage"],
    buckets=_SECONDS,
)
IN_FLIGHT = Gauge("chimera_micro_batches_in_flight", "Micro-batches that are being processed.", ["family"])
RECORDS_REJECTED = Counter("chimera_records_rejected", "Records that were rejected.", ["family", "reason"])
RECORDS_LOST = Counter("chimera_records_lost", "Records that retention deleted before they were consumed.", ["topic"])
REJECT_RATE_HIGH = Gauge(
    "chimera_reject_brake", "1 while the family's reject rate is above its limit, else 0.", ["family"]
)
RETRIES = Counter("chimera_retries", "Failed attempts that were followed by another one.", ["family", "cause"])
RETRYING = Gauge("chimera_retrying", "Micro-batches that wait for another attempt after a failure.", ["family"])
REBALANCES = Counter("chimera_rebalances", "Times that the group has assigned the partitions anew.")
COMMITS_REFUSED = Counter(
    "chimera_commits_refused", "Commits that Kafka refused because the worker had lost partitions."
)

# Metrics of the rollup, which derives session_stats.
ROLLUP_LATE_SECONDS = ManyDurations(
    "chimera_rollup_late_seconds",
    "Time from a late event to the watermark. Late events are in ui_events, and in no row of session_stats.",
    (1, 10, 60, 300, 600, 1800, 3600, 2 * 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600),
)
ROLLUP_EVENTS = Counter("chimera_rollup_events", "Events, late and skewed ones too; replayed ones count once.")
ROLLUP_SKEWED = Counter(
    "chimera_rollup_skewed_events", "Events more than a minute, or than the grace, ahead of the broker's time."
)
ROLLUP_LATE_RATIO = Gauge("chimera_rollup_late_ratio", "Share of late events, over a minute at most.")
ROLLUP_SKEWED_RATIO = Gauge("chimera_rollup_skewed_ratio", "Share of skewed events, over a minute at most.")
ROLLUP_FOREIGN_KEYS = Counter("chimera_rollup_foreign_keys", "Records whose key isn't the session of their event.")
ROLLUP_OPEN_WINDOWS = Gauge("chimera_rollup_open_windows", "Windows that aren't stored yet.")
ROLLUP_CLOSED_HOURS = Gauge("chimera_rollup_closed_hours", "Closed hours of partitions that aren't stored yet.")
ROLLUP_WAITING_EVENTS = Gauge("chimera_rollup_waiting_events", "Events that wait for the watermark.")
ROLLUP_RECORDS_TO_REPLAY = Gauge("chimera_rollup_records_to_replay", "Records still to be replayed.")
ROLLUP_RECORDS_MISSING = Counter(
    "chimera_rollup_records_missing", "Records that retention deleted before a snapshot contained them."
)
ROLLUP_SNAPSHOT_SECONDS = Histogram(
    "chimera_rollup_snapshot_seconds", "Duration of writing a snapshot.", buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30)
)


@contextmanager
def timed(stage: Stage, family: str = ALL_FAMILIES) -> Iterator[None]:
    """Observe the duration of the context as that of a stage, unless it raises."""
    began = perf_counter()
    yield
    STAGE_SECONDS.labels(family, stage).observe(perf_counter() - began)
