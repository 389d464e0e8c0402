"""Order of a micro-batch's steps in ingest, with stand-ins for decoder, table and dead-letter topic."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, cast

import numpy as np
import pytest
from clickhouse_driver.errors import ServerException
from support.records import TOPIC_ID, Record, parts_of

from pipeline.catalog import load_catalog
from pipeline.clickhouse.codes import Code
from pipeline.columns import Rejection, Rows
from pipeline.config import ClickHouseSettings, Settings, WorkerSettings
from pipeline.errors import HaltError, Reason
from pipeline.retry import LostPartitionError, lease_clock
from pipeline.transport.micro_batch import MicroBatch, State
from pipeline.transport.partition import PartitionBatches
from pipeline.worker.ingest import Ingest
from pipeline.worker.places import Places

_FAMILY = load_catalog(Settings()).family("ui_events")
_REJECTION = Rejection(1, Reason.EMPTY, "no bytes")


class _Parts:
    """Decoder, sink and dead-letter writer that note their calls; each may be told to fail or to wait."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.fail: dict[str, BaseException] = {}
        self.swallowed = 0
        """Number of inserts whose rows aren't there afterwards."""
        self.before: Callable[[str], None] = lambda _: None
        self.pool = ThreadPoolExecutor(2)
        self.settings = ClickHouseSettings()

    def _do(self, step: str) -> None:
        self.before(step)
        self.steps.append(step)
        if step in self.fail:
            raise self.fail[step]

    def decode_slices(self, *_: Any) -> Rows:
        self._do("decode")
        return Rows({"ts": np.zeros(1, np.int64)}, np.zeros(1, np.intp), (_REJECTION,))

    def in_expired_days(self, _table: str, times: Any) -> Any:
        return np.zeros(len(times), np.bool_)

    def missing_rows(self, _table: str, _key: str, columns: Any, *, tried: bool) -> Any:
        missing = not tried or self.swallowed > 0
        self.swallowed -= tried and missing
        return np.full(len(columns["ts"]), missing)

    def insert(self, *_: Any) -> None:
        self._do("insert")

    def refusal_code(self, *_: Any) -> int | None:
        self._do("probe")
        return None

    def send(self, *_: Any) -> None:
        self._do("reject")


def _partition(acked: list[str]) -> PartitionBatches:
    partition = PartitionBatches(
        "events", TOPIC_ID, 0, State(0, ()), policy=_FAMILY.batch, limit=2, on_ack=lambda _: acked.append("ack")
    )
    partition.on_broker.accept(partition.state, lease_clock())
    partition.add(parts_of([Record(0, b"a"), Record(1, b"")]), now=0.0)
    return partition


def _batch(acked: list[str]) -> MicroBatch:
    return next(_partition(acked).cut(now=1e9))


def _ingest(parts: _Parts, places: Places) -> Ingest:
    async def renew(_: Any) -> bool:
        return False

    stand_in = cast("Any", parts)
    return Ingest(
        _FAMILY,
        decoder=stand_in,
        sink=stand_in,
        dead_letters=stand_in,
        renew=renew,
        pool=parts.pool,
        places=places,
        settings=WorkerSettings(),
    )


def test_a_micro_batch_takes_its_steps_in_order() -> None:
    """Rejected records are dead letters before the rows are inserted, and the acknowledgement comes last."""
    parts, acked = _Parts(), list[str]()

    async def scenario() -> None:
        await _ingest(parts, Places(1)).process(_batch(acked))

    asyncio.run(scenario())
    assert parts.steps + acked == ["decode", "reject", "insert", "ack"]


@pytest.mark.parametrize("step", ["decode", "reject", "insert"])
def test_a_failed_step_acknowledges_nothing(step: str) -> None:
    """A failure that another attempt can't mend is raised, and no later step runs."""
    parts, acked = _Parts(), list[str]()
    parts.fail[step] = HaltError("no such table")

    async def scenario() -> None:
        with pytest.raises(HaltError):
            await _ingest(parts, Places(1)).process(_batch(acked))

    asyncio.run(scenario())
    assert parts.steps[-1] == step
    assert acked == []


def test_a_lost_partition_is_left_to_its_next_owner() -> None:
    """Nothing is inserted or acknowledged for a partition that was lost, and readers of the rows learn it."""
    parts, acked = _Parts(), list[str]()

    async def scenario() -> None:
        partition = _partition(acked)
        batch = next(partition.cut(now=1e9))
        partition.close()
        await _ingest(parts, Places(1)).process(batch)
        with pytest.raises(LostPartitionError):
            await batch.decoded.get()

    asyncio.run(scenario())
    assert parts.steps + acked == []


def test_a_reader_that_is_cancelled_while_rows_are_decoded_stops_nothing() -> None:
    """The rollup's task is cancelled at a stop while it waits for the rows; ingest goes on to the acknowledgement."""
    parts, acked = _Parts(), list[str]()

    async def scenario() -> None:
        batch, cancelled, loop = _batch(acked), asyncio.Event(), asyncio.get_running_loop()
        reader = asyncio.create_task(batch.decoded.get())

        async def cancel() -> None:
            reader.cancel()
            await asyncio.wait([reader])
            cancelled.set()

        def before(step: str) -> None:
            if step == "decode":
                asyncio.run_coroutine_threadsafe(cancel(), loop).result(60)

        parts.before = before
        await _ingest(parts, Places(1)).process(batch)
        assert cancelled.is_set()

    asyncio.run(scenario())
    assert acked == ["ack"]


def test_a_micro_batch_begins_when_it_has_its_place() -> None:
    """An agent takes no further micro-batch before that, so a rebalance doesn't wait for those in its queue."""
    parts, acked = _Parts(), list[str]()

    async def scenario() -> None:
        places, begun = Places(1), asyncio.Event()
        async with places.take("other"):
            task = asyncio.create_task(_ingest(parts, places).process(_batch(acked), begun))
            await asyncio.sleep(0)
            assert not begun.is_set()
        await begun.wait()
        await task

    asyncio.run(scenario())
    assert acked == ["ack"]


@pytest.mark.parametrize(
    ("refusals", "expected"), [(1, ["insert", "probe", "insert", "ack"]), (2, ["insert", "probe", "insert"])]
)
def test_a_block_that_is_refused_for_no_single_row_is_inserted_once_more(refusals: int, expected: list[str]) -> None:
    """A constraint may be gone by then; a view that refuses it again stops the worker."""
    parts, acked = _Parts(), list[str]()
    refused = ServerException("constraint", code=Code.VIOLATED_CONSTRAINT)
    left = [refused] * refusals

    def refuse(step: str) -> None:
        parts.fail = {"insert": left.pop()} if step == "insert" and left else {}

    parts.before = refuse

    async def scenario() -> None:
        await _ingest(parts, Places(1)).process(_batch(acked))

    with pytest.raises(HaltError, match="none of its rows alone") if refusals == 2 else nullcontext():
        asyncio.run(scenario())
    assert [step for step in parts.steps + acked if step not in ("decode", "reject")] == expected


def test_rows_that_a_known_token_swallows_after_a_refusal_are_inserted() -> None:
    """An attempt before the refusal may have left the token without its rows."""
    parts, acked = _Parts(), list[str]()
    parts.swallowed = 1
    refused = [ServerException("constraint", code=Code.VIOLATED_CONSTRAINT)]

    def refuse(step: str) -> None:
        parts.fail = {"insert": refused.pop()} if step == "insert" and refused else {}

    parts.before = refuse

    async def scenario() -> None:
        await _ingest(parts, Places(1)).process(_batch(acked))

    asyncio.run(scenario())
    assert parts.steps[2:] + acked == ["insert", "probe", "insert", "insert", "ack"]
