-- The queries of the specification, word for word except for blanks at line ends. ClickHouse refuses one of them; its
-- corrected form follows it (docs/queries.md). `pipeline.clickhouse.queries` reads this file. Each query begins with its
-- name; "refused" is the error code of ClickHouse's answer.

-- name: bench_runs_latest
-- Latest benchmarks for a model
SELECT * FROM bench_runs
WHERE model = 'llama-7b'
ORDER BY ts DESC
LIMIT 100;

-- name: bench_runs_trend
-- Performance trend analysis
SELECT
    toDate(ts) as day,
    avg(latency_p95_ms) as avg_latency,
    avg(tokens_per_sec) as avg_throughput
FROM bench_runs
WHERE ts >= now() - INTERVAL 30 DAY
GROUP BY day
ORDER BY day;

-- name: bench_runs_models
-- Model comparison
SELECT
    model,
    quant,
    avg(latency_p95_ms) as avg_latency,
    avg(cost_per_1k) as avg_cost
FROM bench_runs
WHERE ts >= now() - INTERVAL 7 DAY
GROUP BY model, quant
ORDER BY avg_latency;

-- name: llm_events_cost
-- Cost analysis by model
SELECT
    model,
    sum(tokens_in) as total_tokens_in,
    sum(tokens_out) as total_tokens_out,
    sum(cost_usd) as total_cost,
    count(*) as operation_count
FROM llm_events
WHERE ts >= now() - INTERVAL 7 DAY
GROUP BY model
ORDER BY total_cost DESC;

-- name: llm_events_operations
-- Performance by operation type
SELECT
    operation,
    avg(latency_ms) as avg_latency,
    p95(latency_ms) as p95_latency,
    count(*) as operation_count
FROM llm_events
WHERE ts >= now() - INTERVAL 24 HOUR
GROUP BY operation
ORDER BY avg_latency DESC;

-- name: llm_events_error_rate
-- Error rate analysis
SELECT
    source,
    model,
    countIf(status = 'failure') as failures,
    count(*) as total_operations,
    failures / total_operations as error_rate
FROM llm_events
WHERE ts >= now() - INTERVAL 7 DAY
GROUP BY source, model
HAVING error_rate > 0.01
ORDER BY error_rate DESC;

-- name: ui_events_engagement
-- User engagement analysis
SELECT
    event_type,
    count(*) as event_count,
    countDistinct(session_id) as unique_sessions,
    avg(latency_ms) as avg_latency
FROM ui_events
WHERE ts >= now() - INTERVAL 24 HOUR
GROUP BY event_type
ORDER BY event_count DESC;

-- name: ui_events_sessions
-- Session analysis
SELECT
    session_id,
    min(ts) as session_start,
    max(ts) as session_end,
    count(*) as event_count,
    countDistinct(event_type) as event_types
FROM ui_events
WHERE ts >= now() - INTERVAL 7 DAY
GROUP BY session_id
HAVING event_count > 10
ORDER BY event_count DESC
LIMIT 100;

-- name: ui_events_user_agents
-- Performance by user agent
SELECT
    user_agent,
    count(*) as event_count,
    avg(latency_ms) as avg_latency,
    p95(latency_ms) as p95_latency
FROM ui_events
WHERE ts >= now() - INTERVAL 7 DAY
GROUP BY user_agent
ORDER BY event_count DESC
LIMIT 20;

-- name: session_stats_hourly
-- Hourly performance trends
SELECT
    hour,
    avg(avg_latency_ms) as avg_latency,
    avg(error_rate) as avg_error_rate,
    sum(events_count) as total_events
FROM session_stats
WHERE hour >= now() - INTERVAL 7 DAY
GROUP BY hour
ORDER BY hour;

-- name: session_stats_daily
-- Session quality analysis
SELECT
    toDate(hour) as day,
    avg(error_rate) as daily_error_rate,
    avg(abandonment_rate) as daily_abandonment_rate,
    countDistinct(session_id) as unique_sessions
FROM session_stats
WHERE hour >= now() - INTERVAL 30 DAY
GROUP BY day
ORDER BY day;

-- name: watcher_runs_freshness
-- Data freshness monitoring
SELECT
    ts,
    hearts_rows_found,
    packs_rows_found,
    lag_seconds,
    status
FROM watcher_runs
WHERE ts >= now() - INTERVAL 24 HOUR
ORDER BY ts DESC
LIMIT 100;

-- name: watcher_runs_health
-- Pipeline health trends
SELECT
    toDate(ts) as day,
    countIf(status = 'valid') as valid_runs,
    countIf(status = 'degraded') as degraded_runs,
    countIf(status = 'error') as error_runs,
    avg(lag_seconds) as avg_lag
FROM watcher_runs
WHERE ts >= now() - INTERVAL 7 DAY
GROUP BY day
ORDER BY day;

-- name: episodes_trend
-- Content generation trends
SELECT
    series,
    toDate(ts) as day,
    count(*) as episodes_generated,
    avg(confidence_score) as avg_confidence,
    sum(cost_total) as total_cost
FROM episodes
WHERE ts >= now() - INTERVAL 30 DAY
GROUP BY series, day
ORDER BY series, day;

-- name: episodes_quality
-- Quality analysis
SELECT
    series,
    avg(confidence_score) as avg_confidence,
    avg(correlation_strength) as avg_correlation,
    countIf(confidence_score < 0.7) as low_quality_count,
    count(*) as total_episodes
FROM episodes
WHERE ts >= now() - INTERVAL 7 DAY
GROUP BY series
ORDER BY avg_confidence DESC;

-- name: deployments_success
-- Deployment success rates
SELECT
    toDate(ts) as day,
    countIf(status = 'ready') as successful_deployments,
    countIf(status = 'error') as failed_deployments,
    count(*) as total_deployments,
    successful_deployments / total_deployments as success_rate
FROM deployments
WHERE ts >= now() - INTERVAL 7 DAY
GROUP BY day
ORDER BY day;

-- name: deployments_performance
-- Deployment performance
SELECT
    avg(duration_ms) as avg_duration,
    p95(duration_ms) as p95_duration,
    count(*) as deployment_count
FROM deployments
WHERE ts >= now() - INTERVAL 7 DAY
AND status = 'ready';

-- name: agent_runs
-- Link agent runs across tables
SELECT
    w.run_id as watcher_run,
    c.run_id as council_run,
    p.run_id as publisher_run,
    w.status as watcher_status,
    c.confidence_score,
    p.status as deployment_status
FROM watcher_runs w
JOIN episodes c ON w.run_id = c.run_id
JOIN deployments p ON c.run_id = p.episode_run_id
WHERE w.ts >= now() - INTERVAL 7 DAY;

-- name: performance_user_correlation
-- refused: 215
-- Correlate performance improvements with user experience
WITH hearts AS (
    SELECT
        toDate(ts) as day,
        avg(latency_p95_ms) as avg_latency,
        avg(cost_per_1k) as avg_cost
    FROM bench_runs
    WHERE ts >= now() - INTERVAL 7 DAY
    GROUP BY day
),
packs AS (
    SELECT
        toDate(hour) as day,
        avg(avg_latency_ms) as user_latency,
        avg(error_rate) as error_rate
    FROM session_stats
    WHERE hour >= now() - INTERVAL 7 DAY
    GROUP BY day
)
SELECT
    h.day,
    h.avg_latency,
    h.avg_cost,
    p.user_latency,
    p.error_rate,
    corr(h.avg_latency, p.user_latency) as correlation
FROM hearts h
JOIN packs p ON h.day = p.day
ORDER BY h.day;

-- name: performance_user_correlation_corrected
-- Correlate performance improvements with user experience, over all days
WITH hearts AS (
    SELECT
        toDate(ts) as day,
        avg(latency_p95_ms) as avg_latency,
        avg(cost_per_1k) as avg_cost
    FROM bench_runs
    WHERE ts >= now() - INTERVAL 7 DAY
    GROUP BY day
),
packs AS (
    SELECT
        toDate(hour) as day,
        avg(avg_latency_ms) as user_latency,
        avg(error_rate) as error_rate
    FROM session_stats
    WHERE hour >= now() - INTERVAL 7 DAY
    GROUP BY day
)
SELECT
    h.day,
    h.avg_latency,
    h.avg_cost,
    p.user_latency,
    p.error_rate,
    corr(h.avg_latency, p.user_latency) OVER () as correlation
FROM hearts h
JOIN packs p ON h.day = p.day
ORDER BY h.day;

-- name: costs
-- Analyze costs across all operations
SELECT
    'LLM Operations' as category,
    sum(cost_usd) as total_cost,
    count(*) as operation_count
FROM llm_events
WHERE ts >= now() - INTERVAL 7 DAY
UNION ALL
SELECT
    'Episode Generation' as category,
    sum(cost_total) as total_cost,
    count(*) as operation_count
FROM episodes
WHERE ts >= now() - INTERVAL 7 DAY;
