"""Name and columns of the table that the stream job fills."""

TABLE = "session_stats"
"""Where the rows go."""

COLUMNS = {
    "hour": "DateTime",
    "session_id": "UUID",
    "avg_latency_ms": "UInt32",
    "error_rate": "Float32",
    "abandonment_rate": "Float32",
    "events_count": "UInt32",
    "duration_seconds": "UInt32",
}
"""Of that table, with the types that the rows are made for."""
