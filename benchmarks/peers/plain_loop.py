"""Plain loop with confluent-kafka, fastavro and clickhouse-driver: consume a batch, store it, commit it."""

from confluent_kafka import Consumer

from benchmarks.peers.common import BROKERS, GROUP, LINGER_SECONDS, TOPIC, Decoder, Table

# 10,000 to 50,000 rows were equally fast; librdkafka fetches the next records meanwhile, in its own threads.
_BATCH_ROWS = 20_000


def main() -> None:
    """Run until terminated."""
    decode, table = Decoder(), Table()
    consumer = Consumer(
        {
            "bootstrap.servers": BROKERS,
            "group.id": GROUP,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,  # committed below, after the rows are stored
        }
    )
    consumer.subscribe([TOPIC])
    while True:
        messages = consumer.consume(_BATCH_ROWS, timeout=LINGER_SECONDS)
        table.insert([decode(value) for message in messages if (value := message.value()) and not message.error()])
        if messages:
            consumer.commit(asynchronous=False)


if __name__ == "__main__":
    main()
