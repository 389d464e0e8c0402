"""Bytewax peer: its Kafka source, fastavro in a batch operator, and a sink with clickhouse-driver."""

from datetime import timedelta

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from benchmarks.peers import READY
from benchmarks.peers.common import BROKERS, LINGER_SECONDS, TOPIC, Decoder, Row, Table

_BATCH_ROWS = 20_000  # larger polls than the default 1000, or whole polls as single items, were no faster

Keyed = tuple[str, list[Row]]


class _Partition(StatelessSinkPartition[Keyed]):
    def __init__(self) -> None:
        self._table = Table()

    def write_batch(self, items: list[Keyed]) -> None:
        for _, rows in items:
            self._table.insert(rows)


class ClickHouseSink(DynamicSink[Keyed]):
    """Sink that inserts each collected batch."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Partition:  # noqa: ARG002 (Bytewax calls it)
        """Return the partition of the only worker."""
        return _Partition()


def _flow() -> Dataflow:
    decode = Decoder()
    flow = Dataflow("bench")
    messages = op.input("read", flow, KafkaSource([BROKERS], [TOPIC]))
    rows = op.flat_map_batch("decode", messages, lambda batch: [("rows", decode(message.value)) for message in batch])
    batches = op.collect("batch", rows, timeout=timedelta(seconds=LINGER_SECONDS), max_size=_BATCH_ROWS)
    op.output("store", batches, ClickHouseSink())
    return flow


flow = _flow()
print(READY, flush=True)
