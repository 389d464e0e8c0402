"""Prometheus metrics of the worker, which its web server serves at /metrics."""

from prometheus_client import Counter, Gauge, Histogram

# The values of labels are closed sets: families of topics.yaml, reasons of `pipeline.errors.Reason`.
RECORDS_CONSUMED = Counter("chimera_records_consumed", "Records delivered in micro-batches.", ["family"])
ROWS_INSERTED = Counter("chimera_rows_inserted", "Rows stored in ClickHouse.", ["family"])
RECORDS_REJECTED = Counter("chimera_records_rejected", "Records that were rejected.", ["family", "reason"])
RECORDS_LOST = Counter("chimera_records_lost", "Records that retention deleted before they were consumed.", ["topic"])
INSERT_SECONDS = Histogram(
    "chimera_insert_seconds",
    "Duration of a successful insert, with its retries.",
    ["family"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
REJECT_RATE_HIGH = Gauge(
    "chimera_reject_brake", "1 while the family's reject rate is above its limit, else 0.", ["family"]
)
RETRIES = Counter("chimera_retries", "Failed attempts that were followed by another one.", ["family"])
RETRYING = Gauge("chimera_retrying", "Micro-batches that wait for another attempt after a failure.", ["family"])

# Metrics of the rollup, which derives session_stats.
ROLLUP_LATE_SECONDS = Histogram(
    "chimera_rollup_late_seconds",
    "Time from a late event to the watermark. Late events are in ui_events, and in no row of session_stats.",
    buckets=(1, 10, 60, 300, 600, 1800, 3600, 2 * 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600),
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
