-- Deployments of episodes.
CREATE TABLE IF NOT EXISTS deployments (
    ts DateTime64(3,'UTC'),
    run_id UUID,
    episode_run_id UUID,
    status LowCardinality(String),
    vercel_deployment_id String,
    url String,
    duration_ms UInt32,
    error_msg String DEFAULT ''
) ENGINE=MergeTree
PARTITION BY toDate(ts)
ORDER BY (ts, run_id)
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 100000,
    replicated_deduplication_window_seconds = 604800;
