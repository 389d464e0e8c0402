"""A partition's log with transactions of several producers, in bytes as a broker has them."""

import struct
from typing import NamedTuple

from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from hypothesis import strategies as st

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
