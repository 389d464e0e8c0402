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
