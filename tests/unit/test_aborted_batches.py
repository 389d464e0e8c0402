"""Records of a fetch without aborted transactions: as aiokafka itself reads the same bytes as committed."""

import struct
from typing import Any, NamedTuple

from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from pipeline.transport.adapter.records import AbortedTransactions, LogParts

PLAIN = 0  # producer without transactions
_CONTROL = 0x20
_CRC, _ATTRIBUTES = slice(17, 21), slice(21, 23)  # positions in a batch

Step = tuple[int, str, int]
"""Producer, action, and number of records or codec."""
STEPS = st.lists(
    st.tuples(st.integers(PLAIN, 3), st.sampled_from(["send", "send", "gzip", "commit", "abort"]), st.integers(1, 4)),
    max_size=25,
)


class Batch(NamedTuple):
    """A batch of a log."""

    first: int
    end: int
    data: bytes


class Log:
    """A partition's bytes, with the index of its aborted transactions, as a broker has them."""

    def __init__(self, steps: list[Step]) -> None:
        self.batches: list[Batch] = []
        self.aborted: list[tuple[int, int, int]] = []  # producer, first offset, offset of the marker
        self.kept: list[int] = []
        self._open: dict[int, list[int]] = {}
        for step in steps:
            self._do(*step)
        for producer in sorted(self._open):  # nothing behind an open transaction is fetched
            self._do(producer, "abort" if producer % 2 else "commit", 0)
        self.kept.sort()

    @property
    def end(self) -> int:
        """Offset after the log."""
        return self.batches[-1].end if self.batches else 0

    def _do(self, producer: int, action: str, number: int) -> None:
        if action in {"send", "gzip"}:
            offsets = list(range(self.end, self.end + number))
            self._append(producer, [(None, b"%d" % offset) for offset in offsets], codec=int(action == "gzip"))
            (self.kept if producer == PLAIN else self._open.setdefault(producer, [])).extend(offsets)
        elif producer != PLAIN:
            written = self._open.pop(producer, [])
            if action == "abort" and written:
                self.aborted.append((producer, written[0], self.end))
            self.kept += written if action == "commit" else []
            marker = struct.pack(">hh", 0, action == "commit"), struct.pack(">hi", 0, 0)
            self._append(producer, [marker], control=True)

    def _append(
        self, producer: int, records: list[tuple[bytes | None, bytes]], *, codec: int = 0, control: bool = False
    ) -> None:
        builder = DefaultRecordBatchBuilder(2, codec, producer != PLAIN, producer or -1, 0, 0, 1 << 20)
        for number, (key, value) in enumerate(records):
            builder.append(number, 1_000 + number, key, value, [])
        data = bytearray(builder.build())
        data[:8] = self.end.to_bytes(8, "big")
        if control:
            data[_ATTRIBUTES] = (int.from_bytes(data[_ATTRIBUTES], "big") | _CONTROL).to_bytes(2, "big")
            data[_CRC] = calc_crc32c(bytes(data[_ATTRIBUTES.start :])).to_bytes(4, "big")
        self.batches.append(Batch(self.end, self.end + len(records), bytes(data)))

    def fetch(self, offset: int) -> PartitionRecords:
        """Return what a fetch from this offset on gives: whole batches, and the transactions that overlap with it."""
        data = b"".join(batch.data for batch in self.batches if batch.end > offset)
        index = [(producer, first) for producer, first, marker in self.aborted if marker >= offset]
        place, records = TopicPartition("events", 0), fetcher.MemoryRecords(data)
        return PartitionRecords(place, records, index, offset, None, None, True, READ_COMMITTED)


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
