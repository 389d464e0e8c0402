"""Quix Streams peer: fastavro as its deserializer, and a BatchingSink with clickhouse-driver."""

from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

from benchmarks.peers.common import BROKERS, GROUP, LINGER_SECONDS, TOPIC, Decoder, Table


class ClickHouseSink(BatchingSink):
    """Sink that inserts the rows of a partition at each checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self._table = Table()

    def write(self, batch: SinkBatch) -> None:
        """Insert the rows of one partition."""
        self._table.insert([item.value for item in batch])


def main() -> None:
    """Run until terminated."""
    app = Application(
        broker_address=BROKERS,
        consumer_group=GROUP,
        auto_offset_reset="earliest",
        commit_interval=LINGER_SECONDS,  # a checkpoint flushes the sink; other policies were no faster
        consumer_poll_timeout=0.1,  # 1 s by default, which delays the checkpoint of an idle consumer
        loglevel="WARNING",
        use_changelog_topics=False,  # there is no state
        auto_create_topics=False,
    )
    stream = app.dataframe(app.topic(TOPIC, value_deserializer="bytes", key_deserializer="bytes"))
    stream.apply(Decoder()).sink(ClickHouseSink())
    app.run()


if __name__ == "__main__":
    main()
