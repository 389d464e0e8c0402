"""Parts of the pipeline that can be broken, each of which a guarantee hangs on."""

import asyncio
import uuid
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.clickhouse import insert_check
from pipeline.clickhouse.live_columns import CheckedTable
from pipeline.rollup.emission import Emission
from pipeline.rollup.partition import PartitionWindows
from pipeline.rollup.snapshot import Snapshot
from pipeline.rollup.store import SnapshotStore
from pipeline.transport.adapter.records import AbortedTransactions
from pipeline.transport.commit_metadata import JointInsert
from pipeline.transport.commits import Commits
from pipeline.transport.micro_batch import MicroBatch, State
from pipeline.transport.rebalance import Rebalance

_LONG_SECONDS = 3.0  # enough for snapshots of all that has changed


def _random_tokens() -> None:
    batch_class: Any = MicroBatch
    token = batch_class.token
    batch_class.token = property(lambda batch: f"{token.fget(batch)}/{uuid.uuid4()}")


def _blind_repeats() -> None:
    """Nothing is looked for before a range is inserted again, and its token is another one."""
    _random_tokens()
    batch_class: Any = MicroBatch
    batch_class.again = property(lambda _: False)


def _forgotten_ranges() -> None:
    rebalance: Any = Rebalance
    batches_of = rebalance._batches_of

    def forgetful(self: Rebalance, tp: Any, topic_id: str, state: State, start: int) -> Any:
        return batches_of(self, tp, topic_id, State(state.offset, ()), start)

    rebalance._batches_of = forgetful


def _blind_emission() -> None:
    """Nothing is looked for before an hour is stored again, and its token is another one."""
    emission: Any = Emission
    store, store_jointly = emission.store, emission.store_jointly

    async def blind(self: Emission, held: Any, token: str, rows: Any, **_: Any) -> None:
        await store(self, held, f"{token}/{uuid.uuid4()}", rows, again=False)

    async def blind_jointly(self: Emission, joint_inserts: Any, rows: Any) -> Any:
        name = uuid.uuid4().hex[:16]
        return await store_jointly(
            self, {held: JointInsert(name, each.hour) for held, each in joint_inserts.items()}, rows
        )

    async def blind_close(*_: Any) -> bool:
        return False

    emission.store, emission.store_jointly, emission.close_joint_insert = blind, blind_jointly, blind_close
    emission._check = lambda self, held, _: self._retry.check_lease(held)


def _removed_early() -> None:
    """Rows are stored at a time when their windows are in no snapshot any more."""
    windows_class: Any = PartitionWindows
    emission: Any = Emission
    rows_of, remove, store = windows_class.rows, windows_class.remove, emission.store
    store_jointly = emission.store_jointly

    def hasty(self: PartitionWindows, hour: int) -> Any:
        rows = rows_of(self, hour)
        remove(self, hour)
        return rows

    async def slow(*args: Any, **kwargs: Any) -> None:
        await asyncio.sleep(_LONG_SECONDS)
        await store(*args, **kwargs)

    async def slow_jointly(*args: Any) -> Any:
        await asyncio.sleep(_LONG_SECONDS)
        return await store_jointly(*args)

    windows_class.rows, windows_class.remove = hasty, lambda *_: None
    emission.store, emission.store_jointly = slow, slow_jointly


def _offset_too_high() -> None:
    store: Any = SnapshotStore
    write = store.write

    def wrong(self: SnapshotStore, snapshot: Snapshot) -> None:
        write(self, replace(snapshot, offset=snapshot.offset + 1))

    store.write = wrong


def _uncommitted_closings() -> None:
    async def careless(*_: Any) -> bool:
        return True

    commits: Any = Commits
    commits.close_by_clock = careless


def _missed_expired_rows() -> None:
    check: Any = insert_check
    check.expired_times = lambda _, __, ___, times: np.zeros(len(times), np.bool_)


def _unchecked_columns() -> None:
    table: Any = CheckedTable
    table.check = lambda *_: None


def _aborted_records() -> None:
    """Records of aborted transactions are read as if they were committed."""
    aborted: Any = AbortedTransactions
    aborted.covers = lambda *_: False


DEFECTS = {
    "random_tokens": _random_tokens,
    "blind_repeats": _blind_repeats,
    "forgotten_ranges": _forgotten_ranges,
    "blind_emission": _blind_emission,
    "removed_early": _removed_early,
    "offset_too_high": _offset_too_high,
    "uncommitted_closings": _uncommitted_closings,
    "missed_expired_rows": _missed_expired_rows,
    "unchecked_columns": _unchecked_columns,
    "aborted_records": _aborted_records,
}
"""Defects that the suite must notice, by name; each function puts its defect into this process."""
