"""Records of aiokafka's fetches as parts of the log: batches stay as they were fetched, compressed.

So a limit on the records that are taken at once counts parts, not records.

A Python object around each record would cost a quarter of the CPU. aiokafka's C code checks the checksums.

Batches of aborted transactions are left out. The broker sends an index of these transactions with each fetch, so a look
at the head of a batch is enough, and only if the index isn't empty.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from inspect import GEN_CREATED, getgeneratorstate
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import _MemoryRecordsPy

from pipeline.errors import wrong_checksum
from pipeline.transport.batch_format import MOST_UNPACKED, BatchHead, DamagedBatchError
from pipeline.transport.broker import Damage, Fetched
from pipeline.transport.packed import PackedBatch, read_sparse
from pipeline.transport.records import LogPart, RecordColumns

_MARKER_TYPE = slice(2, 4)  # of a control record's key, behind its version
_ABORT = b"\0\0"


class KeptRecords(_MemoryRecordsPy):
    """Records of a fetch, batch by batch; it keeps the bytes of the current batch."""

    batch_bytes: memoryview = memoryview(b"")

    def next_batch(self) -> Any:
        """Return the next batch, read by aiokafka's C code."""
        self.batch_bytes = self._next_slice
        return super().next_batch()


class AbortedTransactions:
    """Batches of a fetch that belong to aborted transactions.

    Args:
        index: producer id and first offset of each aborted transaction that overlaps with the fetch.
    """

    def __init__(self, index: Iterable[tuple[int, int]]) -> None:
        self._to_come = deque(sorted(index, key=lambda entry: entry[1]))
        self._producers: set[int] = set()  # those within an aborted transaction at this point of the log

    def covers(self, batch: Any) -> bool:
        """Tell whether a batch belongs to one of them. Ask for each batch, in the order of the log."""
        if not (self._to_come or self._producers) or batch.producer_id is None:  # None: a format without transactions
            return False
        while self._to_come and self._to_come[0][1] <= batch.base_offset:
            self._producers.add(self._to_come.popleft()[0])
        if batch.is_control_batch and _is_abort_marker(batch):
            self._producers.discard(batch.producer_id)
        return batch.is_transactional and batch.producer_id in self._producers


def _is_abort_marker(control_batch: Any) -> bool:
    """Tell whether a transaction of the batch's producer ends here, aborted."""
    marker = next(iter(control_batch), None)  # compaction may have removed it
    return marker is not None and bytes(marker.key[_MARKER_TYPE]) == _ABORT


class LogParts:
    """Parts of the log in a fetch, in the place of aiokafka's records of it.

    Args:
        theirs: aiokafka's records.
        most: most bytes that the records of a batch may have when they are decompressed.
    """

    def __init__(self, theirs: PartitionRecords, most: int = MOST_UNPACKED) -> None:
        self._most = most
        self.next_fetch_offset = theirs.next_fetch_offset
        self.damage: Damage | None = None  # if the fetch begins with a batch that can't be read
        self._aborted = AbortedTransactions(theirs._aborted_transactions)  # noqa: SLF001 (replaces that object)
        self._parts = self._unpack(theirs._records, check_crcs=theirs._check_crcs)  # noqa: SLF001 (as above)

    def __iter__(self) -> Iterator[LogPart]:
        return self._parts

    def _unpack(self, fetched: KeptRecords, *, check_crcs: bool) -> Iterator[LogPart]:
        begin = self.next_fetch_offset
        while fetched.has_next():
            batch = fetched.next_batch()
            offsets = range(int.from_bytes(fetched.batch_bytes[:8], "big"), batch.next_offset)
            part, fault = None, ""
            if check_crcs and not batch.validate_crc():
                fault = wrong_checksum(offsets)
            elif not (self._aborted.covers(batch) or batch.is_control_batch):
                try:
                    part = self._part(batch, fetched.batch_bytes)
                except (DamagedBatchError, CorruptRecordException) as error:
                    fault = str(error)
            if fault:
                if self.next_fetch_offset == begin:  # else the next fetch begins with this batch
                    self.damage = Damage(offsets, fault)
                return
            self.next_fetch_offset = max(self.next_fetch_offset, batch.next_offset)
            if part:
                yield part

    def _part(self, batch: Any, data: memoryview) -> LogPart:
        """Return the records from the position on; there may be none, as the position may be behind all of them."""
        if batch.producer_id is None:  # an older format, as only old logs have it
            return RecordColumns.of([record for record in batch if record.offset >= self.next_fetch_offset])
        if not BatchHead.of(data).dense:
            return read_sparse(data, self.next_fetch_offset, self._most)
        return PackedBatch.of(data, self.next_fetch_offset, self._most)


async def take(
    client_fetcher: Any, topics: Iterable[str], most: int, fetched_records: Callable[[], Awaitable[Any]]
) -> dict[Any, Fetched]:
    """Take what has arrived: also stretches without a record, which move aiokafka's position too.

    Args:
        client_fetcher: aiokafka's.
        topics: the topics whose records are taken as parts of the log.
        most: as of `LogParts`.
        fetched_records: takes records by partition from the fetcher, without waiting for any.
    """
    _replace_records(client_fetcher, topics, most)
    before = {tp: (state, state.position, records) for tp, (state, records) in _positioned(client_fetcher).items()}
    records = await fetched_records()
    taken = {tp: Fetched(some[0].offset, some[-1].offset + 1, some) for tp, some in records.items() if tp not in before}
    for tp, (state, first, read) in before.items():
        if state.position != first:
            taken[tp] = Fetched(first, state.position, records.get(tp, ()))
        elif isinstance(read, LogParts) and read.damage:
            taken[tp] = Fetched(first, first, damage=read.damage)
    return taken


def _replace_records(client_fetcher: Any, topics: Iterable[str], most: int) -> None:
    """Replace aiokafka's records in a fetcher, of these topics, unless some of a fetch were read already."""
    for tp, fetched in client_fetcher._records.items():  # noqa: SLF001 (aiokafka offers no other way in)
        theirs = fetched._partition_records if isinstance(fetched, FetchResult) else None  # noqa: SLF001 (as above)
        if isinstance(theirs, PartitionRecords) and tp.topic in topics and _untouched(theirs):
            fetched._partition_records = LogParts(theirs, most)  # noqa: SLF001 (as above)
            # It refers to its records, and they to it. A megabyte in such a cycle waits for the garbage collector.
            theirs._records_iterator.close()  # noqa: SLF001 (as above)


def _positioned(client_fetcher: Any) -> dict[Any, tuple[Any, Any]]:
    """Return aiokafka's state, which has the position, and the records of each partition of which some are fetched."""
    fetched = client_fetcher._records.items()  # noqa: SLF001 (as above)
    found = {
        tp: (each._assignment.state_value(tp), each._partition_records)  # noqa: SLF001 (as above)
        for tp, each in fetched
        if isinstance(each, FetchResult)
    }
    return {tp: (state, records) for tp, (state, records) in found.items() if state.has_valid_position}


def _untouched(records: PartitionRecords) -> bool:
    return getgeneratorstate(records._records_iterator) == GEN_CREATED  # noqa: SLF001 (as above)


fetcher.MemoryRecords = KeptRecords  # the fetcher takes no other class
