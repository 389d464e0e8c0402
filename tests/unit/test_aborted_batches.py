"""Records of a fetch without aborted transactions: as aiokafka itself reads the same bytes as committed."""

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.transaction_log import PLAIN, STEPS, Log, Step

from pipeline.transport.adapter.records import AbortedTransactions, LogParts


def _read(records: Any) -> tuple[list[tuple[Any, ...]], int]:
    each = [record for part in records for record in part.columns()] if isinstance(records, LogParts) else list(records)
    found = [(one.offset, one.timestamp, one.key, one.value, tuple(one.headers)) for one in each]
    return found, records.next_fetch_offset


def _damaged(light: LogParts) -> range | None:
    return light.damage and light.damage.offsets


@given(steps=STEPS, where=st.integers(0, 100))
def test_the_parts_of_a_fetch_are_what_aiokafka_reads_as_committed(steps: list[Step], where: int) -> None:
    """The same records and the same next offset, from any offset on: those of committed transactions, and of none."""
    log = Log(steps)
    offset = where % (log.end + 1)
    light, reached = _read(LogParts(log.fetch(offset)))
    assert (light, reached) == _read(log.fetch(offset))
    assert [record[0] for record in light] == [kept for kept in log.kept if kept >= offset]
    assert reached == log.end


def test_a_marker_of_a_later_version_ends_a_transaction_too() -> None:
    """Only the marker's type says that it is an abort; aiokafka itself knows version 0 alone."""
    aborted = AbortedTransactions([(1, 0)])
    assert aborted.covers(_Head(1, 0))
    assert aborted.covers(_Head(2, 1)) is False
    aborted.covers(_Head(1, 2, marker=struct.pack(">hh", 1, 0)))
    assert aborted.covers(_Head(1, 3)) is False


def test_a_control_batch_whose_marker_was_compacted_away_is_no_error() -> None:
    """The transaction's records are gone with it."""
    aborted = AbortedTransactions([(1, 0)])
    assert aborted.covers(_Head(1, 0, control=True))


def test_a_damaged_batch_of_an_aborted_transaction_is_an_error_as_any() -> None:
    """Its head can't be trusted either."""
    log = Log([(1, "send", 3), (1, "abort", 0)])
    _damage(log, 0)
    light = LogParts(log.fetch(0))
    assert (_read(light), _damaged(light)) == (([], 0), range(3))


def test_records_before_a_damaged_batch_are_read_first() -> None:
    """The damage is told by the next fetch, which begins with the batch."""
    log = Log([(PLAIN, "send", 2), (PLAIN, "send", 3), (PLAIN, "send", 1)])
    _damage(log, 1)
    light = LogParts(log.fetch(0))
    before, reached = _read(light)
    assert [record[0] for record in before] == [0, 1]
    assert (reached, _damaged(light)) == (log.batches[1].first, None)
    light = LogParts(log.fetch(reached))
    assert (_read(light), _damaged(light)) == (([], reached), range(2, 5))


def _damage(log: Log, number: int) -> None:
    batch = log.batches[number]
    log.batches[number] = batch._replace(data=batch.data[:-1] + b"?")


class _Head:
    """Head of a transactional batch; a control batch if it has a marker."""

    is_transactional = True

    def __init__(self, producer: int, offset: int, marker: bytes | None = None, *, control: bool = False) -> None:
        self.producer_id = producer
        self.base_offset = offset
        self.key = marker
        self.is_control_batch = control or marker is not None

    def __iter__(self) -> Any:
        return iter([self] if self.key else [])
