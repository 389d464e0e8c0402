"""What the worker counts, in Prometheus' terms; served at /metrics of its web server."""

from prometheus_client import Counter, Gauge, Histogram

# Labels have closed sets: families of topics.yaml, reasons of `pipeline.errors.Reason`.
RECORDS_CONSUMED = Counter("chimera_records_consumed", "Records delivered in micro-batches.", ["family"])
ROWS_INSERTED = Counter("chimera_rows_inserted", "Rows stored in ClickHouse.", ["family"])
RECORDS_REJECTED = Counter("chimera_records_rejected", "Records that were not stored.", ["family", "reason"])
RECORDS_LOST = Counter("chimera_records_lost", "Records that retention deleted before they were consumed.", ["topic"])
INSERT_SECONDS = Histogram(
    "chimera_insert_seconds",
    "Duration of an insert that succeeded.",
    ["family"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
REJECT_BRAKE = Gauge("chimera_reject_brake", "1 while too large a part of the records is rejected.", ["family"])
RETRIES = Counter("chimera_retries", "Attempts that failed and were made again.", ["family"])
RETRYING = Gauge("chimera_retrying", "Micro-batches whose last attempt failed and which are tried again.", ["family"])
