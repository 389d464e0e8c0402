-- The specification's tables, word for word: what the migrations are compared with.

CREATE TABLE bench_runs (
    ts DateTime64(3,'UTC'),
    run_id UUID,
    commit_sha FixedString(40),
    model LowCardinality(String),
    quant LowCardinality(String),
    dataset LowCardinality(String),
    latency_p50_ms UInt32,
    latency_p95_ms UInt32,
    latency_p99_ms UInt32,
    tokens_per_sec Float32,
    cost_per_1k Decimal(10,6),
    memory_peak_mb UInt32,
    schema_version UInt8 DEFAULT 1
) ENGINE=ReplacingMergeTree(ts)
PARTITION BY toDate(ts)
ORDER BY (model, quant, dataset, run_id);

CREATE TABLE llm_events (
    ts DateTime64(3,'UTC'),
    run_id UUID,
    source LowCardinality(String),
    model LowCardinality(String),
    operation LowCardinality(String),
    tokens_in UInt32,
    tokens_out UInt32,
    latency_ms UInt32,
    cost_usd Decimal(12,6),
    status LowCardinality(String),
    error_msg String DEFAULT ''
) ENGINE=MergeTree
PARTITION BY toDate(ts)
ORDER BY (source, ts);

CREATE TABLE ui_events (
    ts DateTime64(3,'UTC'),
    session_id UUID,
    commit_sha FixedString(40),
    event_type LowCardinality(String),
    latency_ms UInt32,
    user_agent String,
    metadata String,
    schema_version UInt8 DEFAULT 1
) ENGINE=MergeTree
PARTITION BY toDate(ts)
ORDER BY (event_type, ts);

CREATE TABLE session_stats (
    hour DateTime,
    session_id UUID,
    avg_latency_ms UInt32,
    error_rate Float32,
    abandonment_rate Float32,
    events_count UInt32,
    duration_seconds UInt32
) ENGINE=MergeTree
PARTITION BY toDate(hour)
ORDER BY (hour, session_id);

CREATE TABLE watcher_runs (
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
ORDER BY (ts, run_id);

CREATE TABLE episodes (
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
ORDER BY (series, episode_num, ts);

CREATE TABLE deployments (
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
ORDER BY (ts, run_id);
