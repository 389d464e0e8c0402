-- Runs of the watcher agent.
CREATE TABLE IF NOT EXISTS watcher_runs (
    ts DateTime64(3,'UTC'),
    run_id UUID,
    hearts_commit FixedString(40),
    packs_commit FixedString(40),
    hearts_rows_found UInt32,
    packs_rows_found UInt32,
    lag_seconds UInt32,
    status LowCardinality(String),
    duration_ms UInt32
) ENGINE=MergeTree
PARTITION BY toDate(ts)
ORDER BY (ts, run_id)
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 100000,
    replicated_deduplication_window_seconds = 604800;
