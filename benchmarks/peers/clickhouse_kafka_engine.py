"""ClickHouse peer: a Kafka engine table reads the topic, and a materialized view fills `ui_events` from it.

The server does the work. This process creates table and view, waits, and drops them when it is terminated.
"""

import os
import signal

from benchmarks.peers.common import BROKERS, GROUP, REGISTRY, TOPIC, connect

_COLUMNS = """
    ts DateTime64(3, 'UTC'), session_id UUID, commit_sha String, event_type LowCardinality(String), latency_ms UInt32,
    user_agent String, metadata String, schema_version UInt8
"""
_BLOCK_ROWS = 65_536
_CONSUMERS = os.cpu_count() or 1
_SETTINGS = {
    "kafka_broker_list": BROKERS,
    "kafka_topic_list": TOPIC,
    "kafka_group_name": GROUP,
    "kafka_format": "AvroConfluent",
    "format_avro_schema_registry_url": REGISTRY,
    "kafka_num_consumers": _CONSUMERS,
    "kafka_thread_per_consumer": 1,  # each inserts blocks of its own
    "kafka_max_block_size": _BLOCK_ROWS,
    "kafka_poll_max_batch_size": _BLOCK_ROWS,  # a poll may return a whole block
    "kafka_flush_interval_ms": 500,  # 7,500 by default, a wait at the end of the topic; 250 to 1,000 were equally fast
}


def main() -> None:
    """Run until terminated."""
    client = connect()
    settings = ", ".join(f"{name} = {value!r}" for name, value in _SETTINGS.items())
    client.execute(f"CREATE TABLE ui_events_topic ({_COLUMNS}) ENGINE = Kafka SETTINGS {settings}")
    client.execute("CREATE MATERIALIZED VIEW ui_events_feed TO ui_events AS SELECT * FROM ui_events_topic")
    signal.sigwait({signal.SIGTERM})
    client.execute("DROP VIEW ui_events_feed SYNC")
    client.execute("DROP TABLE ui_events_topic SYNC")


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
