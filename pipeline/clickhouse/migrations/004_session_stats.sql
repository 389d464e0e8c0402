-- Hourly statistics of a session, derived from ui_events.
CREATE TABLE IF NOT EXISTS session_stats (
    hour DateTime,
    session_id UUID,
    avg_latency_ms UInt32,
    error_rate Float32,
    abandonment_rate Float32,
    events_count UInt32,
    duration_seconds UInt32
) ENGINE=MergeTree
PARTITION BY toDate(hour)
ORDER BY (hour, session_id)
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 100000,
    replicated_deduplication_window_seconds = 604800;
