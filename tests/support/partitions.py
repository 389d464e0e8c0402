"""A partition of micro-batches for tests, with records that fill it."""

from collections.abc import Iterable
from typing import Any

from pipeline.catalog import BatchPolicy
from pipeline.transport.commit_metadata import Closing
from pipeline.transport.micro_batch import State
from pipeline.transport.partition import PartitionBatches
from pipeline.transport.records import RecordColumns
from support.records import Record, parts_of

LINGER_SECONDS = 5.0
MAX_BYTES = 1024


def records_at(offsets: Iterable[int], size: int = 10) -> list[RecordColumns]:
    """Return records at these offsets, each with a value of `size` bytes."""
    return parts_of(Record(offset, bytes(size)) for offset in offsets)


def partition_of(
    *,
    rows: int = 1000,
    limit: int = 100,
    offset: int = 0,
    ends: tuple[int, ...] = (),
    closings: tuple[Closing, ...] = (),
    max_bytes: int = MAX_BYTES,
    **options: Any,
) -> PartitionBatches:
    """Return partition 7 of a topic, with this committed state and policy."""
    policy = BatchPolicy.model_construct(max_rows=rows, max_bytes=max_bytes, linger_seconds=LINGER_SECONDS)
    state = State(offset, ends, closings)
    return PartitionBatches("topic", "id", 7, state, policy=policy, limit=limit, **options)


def cut(partition: PartitionBatches, now: float = 0.0, *, hurry: bool = False) -> list[list[int]]:
    """Return the offsets of the records in each micro-batch that is cut now."""
    return [[record.offset for record in batch.records] for batch in partition.cut(now, hurry=hurry)]
