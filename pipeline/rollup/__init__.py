"""session_stats: one row a session and UTC hour, derived from ui_events by event time.

The way of an event, by module (those not marked * are pure: no clock, no Kafka, no ClickHouse):

    micro-batch  ─►  job*  ─►  partition (fold, rows)  ─►  job*  ─►  session_stats
                                      │ columns
                      state topic  ◄─  store*  ◄─  snapshot

- partition: what one partition knows: the watermark, the events that wait for it (`waiting`), and the windows. `fold`
  is the sorted pass that makes windows of events, `rows` is what windows become, `late` counts events that missed them.
- snapshot: that state as compressed chunks; slots: which of the state topic's records are whole; store*: reads and
  writes them there.
- job: the stream job; it shares the micro-batches with ingest, and emits an hour when it is over.
- audit*: session_stats computed from ui_events in SQL; horizon*: how far it is final. `chimera rollup` is made of them:
  verify* compares, repair* rewrites a day.
"""

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
