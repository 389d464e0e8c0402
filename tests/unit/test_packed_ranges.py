"""Ranges over compressed batches: each owner of a partition cuts the same records for a committed range."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.partitions import partition_of
from support.transaction_log import STEPS, Log, Step

from pipeline.transport.adapter.records import LogParts
from pipeline.transport.micro_batch import MicroBatch
from pipeline.transport.partition import PartitionBatches
from pipeline.transport.records import LogPart, RecordColumns

Owner = tuple[int, bool, int]
"""Rows of its micro-batches; true if it holds batches as they are fetched, false if records; and most bytes."""
OWNERS = st.tuples(st.integers(1, 9), st.booleans(), st.integers(1, 60))


def _parts(log: Log, offset: int, *, packed: bool) -> tuple[list[LogPart], int]:
    """Fetch all from an offset on; an owner of another release makes records of it."""
    fetched: Any = LogParts(log.fetch(offset)) if packed else log.fetch(offset)
    some = list(fetched)
    parts = some if packed else [RecordColumns.of(some[at : at + 3]) for at in range(0, len(some), 3)]
    return parts, fetched.next_fetch_offset


def _owner(log: Log, owner: Owner, before: PartitionBatches | None, start: int | None = None) -> PartitionBatches:
    """Take the partition over from another owner, and fetch all."""
    rows, packed, max_bytes = owner
    state = before.state if before else None
    offset = state.offset if state else 0
    partition = partition_of(
        rows=rows, offset=offset, ends=state.ends if state else (), start=start, max_bytes=max_bytes
    )
    parts, reached = _parts(log, offset if start is None else min(start, offset), packed=packed)
    partition.add(parts, 0.0, reached)
    return partition


def _offsets(batch: MicroBatch) -> list[int]:
    return [int(record.value or b"-1") for record in batch.records]


@settings(max_examples=300)
@given(steps=STEPS, owners=st.tuples(OWNERS, OWNERS, OWNERS), data=st.data())
def test_each_owner_cuts_the_committed_ranges_alike(
    steps: list[Step], owners: tuple[Owner, Owner, Owner], data: st.DataObject
) -> None:
    """With other limits or of another release, from the middle of a batch on, with markers in between."""
    log = Log(steps)
    committed, stored, before = dict[str, list[int]](), list[int](), None
    for owner in owners:
        partition = _owner(log, owner, before)
        known = set(committed)
        cut = list(partition.cut(0.0, hurry=True))
        for batch in cut:
            assert committed.setdefault(batch.token, _offsets(batch)) == _offsets(batch)
            assert not batch.again or batch.token in known
        for batch in cut[: data.draw(st.integers(0, len(cut)))]:
            batch.ack()
            stored += _offsets(batch)
        before = partition
    assert before is not None
    for batch in _owner(log, owners[0], before).cut(0.0, hurry=True):
        stored += _offsets(batch)
    assert stored == log.kept


@given(steps=STEPS, owners=st.tuples(OWNERS, OWNERS), start=st.integers(0, 30))
def test_a_replay_ends_at_the_committed_offset(steps: list[Step], owners: tuple[Owner, Owner], start: int) -> None:
    """In the middle of a batch too; the records behind it are in no replayed micro-batch."""
    log = Log(steps)
    first = _owner(log, owners[0], None)
    for batch in list(first.cut(0.0, hurry=True))[::2][:1]:
        batch.ack()
    done = first.state.offset
    second = _owner(log, owners[1], first, start)
    replayed, others = list[int](), list[int]()
    for batch in second.cut(0.0, hurry=True):
        (replayed if batch.replayed else others).extend(_offsets(batch))
    assert replayed == [offset for offset in log.kept if start <= offset < done]
    assert others == [offset for offset in log.kept if offset >= done]
