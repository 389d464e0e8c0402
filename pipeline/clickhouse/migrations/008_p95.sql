-- The specification's queries call p95, which isn't one of ClickHouse's functions.
CREATE FUNCTION IF NOT EXISTS p95 AS x -> quantile(0.95)(x);
