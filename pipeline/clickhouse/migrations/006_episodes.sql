-- Generated episodes.
CREATE TABLE IF NOT EXISTS episodes (
    ts DateTime64(3,'UTC'),
    run_id UUID,
    series LowCardinality(String),
    episode_num UInt16,
    title String,
    confidence_score Float32,
    correlation_strength Float32,
    tokens_total UInt32,
    cost_total Decimal(12,6),
    status LowCardinality(String),
    file_path String,
    commit_sha FixedString(40)
) ENGINE=MergeTree
PARTITION BY toDate(ts)
ORDER BY (series, episode_num, ts)
SETTINGS
    non_replicated_deduplication_window = 100000,
    replicated_deduplication_window = 100000,
    replicated_deduplication_window_seconds = 604800;
