"""Stock Faust agent with `take` for batches, fastavro and clickhouse-driver."""

import asyncio

import faust

from benchmarks.peers.common import BROKERS, GROUP, LINGER_SECONDS, TOPIC, Decoder, Table

_BATCH_ROWS = 5_000

app = faust.App(
    GROUP,
    broker=f"kafka://{BROKERS}",
    consumer_auto_offset_reset="earliest",
    stream_buffer_maxsize=4 * _BATCH_ROWS,  # the default, 4096, is smaller than a batch
    topic_disable_leader=True,  # no topics of Faust's own: there are no tables
    web_enabled=False,
)
decode, table = Decoder(), Table()


@app.agent(app.topic(TOPIC, key_serializer="raw", value_serializer="raw"))
async def store(stream: faust.StreamT[bytes]) -> None:
    """Insert the stream in batches. The driver blocks, so it runs in a thread while the loop fetches."""
    async for values in stream.take(_BATCH_ROWS, within=LINGER_SECONDS):
        rows = [decode(value) for value in values]
        await asyncio.to_thread(table.insert, rows)


if __name__ == "__main__":
    app.main()
