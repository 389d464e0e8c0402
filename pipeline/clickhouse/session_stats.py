"""Name and columns of session_stats, the table of the rollup."""

TABLE = "session_stats"
"""Name of the table."""

COLUMNS = {
    "hour": "DateTime",
    "session_id": "UUID",
    "avg_latency_ms": "UInt32",
    "error_rate": "Float32",
    "abandonment_rate": "Float32",
    "events_count": "UInt32",
    "duration_seconds": "UInt32",
}
"""Name and ClickHouse type of each column; the rollup makes its rows for these types."""
