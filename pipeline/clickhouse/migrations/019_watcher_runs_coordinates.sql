-- Coordinates of each row's record: id of the topic, partition, offset. MATERIALIZED keeps them out of SELECT * and of INSERTs
-- without a list of columns; the worker writes their values. Rows from before this migration have the zero UUID.
-- Never run ALTER TABLE ... MATERIALIZE COLUMN on them: it replaces the coordinates of all rows by zeros.
ALTER TABLE watcher_runs ADD COLUMN IF NOT EXISTS _topic_id UUID MATERIALIZED defaultValueOfTypeName('UUID') CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS _partition UInt16 MATERIALIZED 0 CODEC(T64, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS _offset UInt64 MATERIALIZED 0 CODEC(T64, ZSTD(1));
