"""session_stats: one row per session and UTC hour, derived from ui_events by event time.

The way of an event through the modules; modules without * are pure: no clock, no Kafka, no ClickHouse.

    micro-batch  ─►  job*  ─►  partition (fold, rows)  ─►  job*  ─►  session_stats
                                      │ columns
                      state topic  ◄─  store*  ◄─  snapshot

1. `job`* gets each micro-batch of ui_events after ingest has decoded it, and adds it to the `derivation` of its
   partition. `events` takes from its rows what the windows need.
2. `partition` moves the watermark and puts the events into the reorder buffer (`waiting`). An event behind the
   watermark is late: `late` counts it. `fold` sorts the other events into windows once the watermark has passed them.
3. When the watermark passes the end of an hour, the hour is closed. `idleness` closes hours of an idle partition by the
   clock (`closing`*). `rows` turns the windows of a closed hour into rows; `storing`* has the hours of all partitions
   stored together by `emission`* and `joint_insert`*, once.
4. `snapshot` packs the windows of a partition into chunks, and `store`* writes these to the state topic. After a
   restart `recovery`* restores a partition from its newest whole snapshot (`slots` finds it) and the log after it.

`chimera rollup` checks the result: `audit`* computes session_stats from ui_events in SQL, `horizon`* tells which hours
are closed, `verify`* compares, and `repair`* rewrites a day.
"""
