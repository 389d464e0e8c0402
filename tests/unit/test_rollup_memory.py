"""What the rollup's job keeps of a micro-batch."""

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from support.records import Record, parts_of

from pipeline.catalog import BatchPolicy
from pipeline.columns import DictionaryColumn, Rows
from pipeline.config import Settings
from pipeline.rollup.assigned import AssignedPartition
from pipeline.rollup.clock import Clock
from pipeline.rollup.derivation import Derivation
from pipeline.rollup.job import RollupJob
from pipeline.rollup.partition import PartitionWindows
from pipeline.rollup.recovery import Recovery
from pipeline.transport.broker import TopicPartition
from pipeline.transport.deriver import Takeover
from pipeline.transport.micro_batch import MicroBatch, State
from pipeline.transport.partition import PartitionBatches

_TP = TopicPartition("events", 0)


def _rows() -> Rows:
    columns: dict[str, Any] = {
        "session_id": np.frombuffer(bytes(range(16)), "V16"),
        "ts": np.array([490_000 * 3_600_000]),
        "event_type": DictionaryColumn(np.zeros(1, np.uint32), [b"overlay_open"]),
        "latency_ms": np.ones(1, np.int64),
    }
    return Rows(columns, np.arange(1), ())


def test_rows_are_freed_when_their_micro_batch_is_done() -> None:
    """A partition that waits for its next micro-batch would otherwise keep 100,000 rows of the last one."""
    rows = weakref.WeakValueDictionary[int, Any]()

    async def decode(_: MicroBatch) -> Rows:
        decoded = _rows()
        rows[0] = decoded.positions  # the windows keep some of the columns
        return decoded

    asyncio.run(_until_freed(decode, rows))


async def _until_freed(decode: Callable[[MicroBatch], Awaitable[Rows]], rows: Mapping[int, Any]) -> None:
    """Give a job one micro-batch; return when the rows are freed.

    Raises:
        TimeoutError: they aren't.
    """
    acked = asyncio.Event()
    given: Any = SimpleNamespace(broker_time_ms=lambda: 0)
    job = RollupJob(
        "events",
        Settings(),
        store=given,
        sink=given,
        consumer=lambda: given,
        renew=cast(Any, None),
        decode=decode,
        halt=lambda error: pytest.fail(str(error)),
    )
    owner = PartitionBatches(
        "events",
        "id",
        0,
        State(0, ()),
        policy=BatchPolicy(max_rows=1, max_bytes=1024, linger_seconds=1.0),
        limit=2,
        on_ack=lambda _: acked.set(),
    )
    recovery = Recovery(_TP, None, Takeover("id", 0, 0, (), 0), Clock())
    partition = AssignedPartition(
        _TP, "id", Derivation(PartitionWindows(1000), 0), recovery, (None, None), quiet_since=0.0, saved_at=0.0
    )
    job._partitions[_TP] = partition
    job._start(partition, job._follow)
    owner.add(parts_of([Record(0, b".", b"")]), 0.0)
    job.take(next(owner.cut(9.0)))
    async with asyncio.timeout(10):
        await acked.wait()
        while rows:  # noqa: ASYNC110 (nothing tells that memory is freed)
            await asyncio.sleep(0.001)
    partition.drop()
