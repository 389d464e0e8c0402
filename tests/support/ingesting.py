"""Micro-batches that go through ingest without a worker, once or again after another owner, and their dead letters."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.catalog import Family
from pipeline.clickhouse.sink import Sink
from pipeline.config import Settings, ValidationSettings
from pipeline.decode.decoder import Decoder
from pipeline.dlq.writer import DeadLetters
from pipeline.kafka.offsets import TopicReader
from pipeline.producer.encode import Encoder
from pipeline.producer.sample import sample
from pipeline.retry import Held, lease_clock
from pipeline.transport.micro_batch import MicroBatch, State
from pipeline.transport.partition import PartitionBatches
from pipeline.worker.ingest import Ingest
from pipeline.worker.places import Places
from support.records import TOPIC_ID, Record, parts_of

START = datetime(2026, 3, 1, tzinfo=UTC)
HOURS = 72.0
ROWS = 900
END_MS = round((START + timedelta(hours=HOURS)).timestamp() * 1000)
"""Timestamp of all records; no event is later than its record."""


def values(family: Family, seed: int = 1, rows: int = ROWS) -> list[bytes]:
    """Return events of three days."""
    encoder = Encoder(family)
    events = sample(rows, seed=seed, start=START, hours=HOURS, families=[family.name])
    return [encoder.encode(event).value for _, event in events]


def batch_of(family: Family, records: Sequence[bytes], *, again: bool = False, first: int = 0) -> MicroBatch:
    """Make a micro-batch of all records; `again` if an earlier owner committed its range."""
    state = State(first, (first + len(records) - 1,) if again else ())
    owner = PartitionBatches(family.topic.name, TOPIC_ID, 0, state, policy=family.batch, limit=2)
    owner.on_broker.accept(state, lease_clock())
    owner.add(parts_of(Record(at, value, timestamp=END_MS) for at, value in enumerate(records, start=first)), 0.0)
    (batch,) = owner.cut(0.0, hurry=True)
    return batch


def ingest(settings: Settings, family: Family, batch: MicroBatch, validation: ValidationSettings | None = None) -> None:
    """Take a micro-batch through all steps, as a new worker does."""

    async def renew(_: Held) -> bool:
        return True

    sink = Sink(settings.clickhouse)
    with ThreadPoolExecutor(1) as pool:
        steps = Ingest(
            family,
            decoder=Decoder(family, validation=validation),
            sink=sink,
            dead_letters=DeadLetters(settings.kafka, [family]),
            renew=renew,
            pool=pool,
            places=Places(1),
            settings=settings.worker,
        )
        asyncio.run(steps.process(batch))
    sink.close()


def dead_letters(settings: Settings, family: Family) -> dict[int, str]:
    """Return the reason of each dead letter by the offset of its record."""
    with TopicReader(settings.kafka, family.dead_letters.name) as reader:
        headers: list[Any] = [dict(record.headers() or ()) for record in reader.read(reader.ranges())]
    return {int(each["chimera.error.offset"]): each["chimera.error.reason"].decode() for each in headers}
