"""A micro-batch, and the state of a partition that is committed for it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from pipeline.columns import Ints, Rows, Spans
from pipeline.errors import damaged_log, way_past
from pipeline.transport.batch_format import DamagedBatchError
from pipeline.transport.commit_metadata import Closing, JointInsert
from pipeline.transport.packed import read
from pipeline.transport.records import ColumnRecord, LogPart, RecordColumns
from pipeline.transport.shared import Shared

_PORTION = 8192  # records that are read at once


class State(NamedTuple):
    """State of a partition, as it is committed."""

    offset: int
    """Offset of the first record that isn't done."""
    ends: tuple[int, ...]
    """Last offset of each range in flight, ascending."""
    closings: tuple[Closing, ...] = ()
    """Closings by the clock that are still needed."""
    joint_insert: JointInsert | None = None
    """Joint insert of the deriver that may be under way; see `Commits.name_joint_insert`."""


class Owner(Protocol):
    """Partition that a micro-batch belongs to."""

    topic: str
    topic_id: str
    partition: int
    live: bool
    inherited_to: int

    @property
    def committed_at(self) -> float: ...  # noqa: D102 (see MicroBatch.committed_at)

    def ack(self, batch: "MicroBatch") -> None: ...  # noqa: D102 (see MicroBatch.ack)


class MicroBatch:
    """Consecutive records of one topic-partition, acknowledged as a whole.

    Args:
        owner: partition of the records.
        first: first offset of the range; there may be no record at it.
        last: last offset of the range; there may be no record at it if the range is cut again.
        parts: parts of the log; there is none if the range has no record.
        acks: number of acknowledgements that it takes.
        replayed: True if the records are stored already, and are delivered again for the deriver alone.
    """

    __slots__ = ("_parts", "_places", "acks", "decoded", "first", "held_bytes", "last", "owner", "replayed", "size")

    def __init__(
        self,
        owner: Owner,
        first: int,
        last: int,
        parts: Sequence[LogPart],
        *,
        acks: int = 1,
        replayed: bool = False,
    ) -> None:
        self.owner = owner
        self.first = first
        self.last = last
        self.size = sum(part.size for part in parts)
        """Bytes of the records when they are read, about."""
        self.held_bytes = sum(part.held_bytes for part in parts)
        """Bytes that the records take in memory until they are read."""
        self.acks = acks
        self.replayed = replayed
        self._parts = parts
        self._places: _Places | None = None  # kept when the records have been read
        self.decoded: Shared[Rows] = Shared()
        """Rows that ingest decodes; other agents wait for them."""

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __repr__(self) -> str:
        return f"<{self.topic}-{self.partition} [{self.first}, {self.last}]>"

    @property
    def topic(self) -> str:
        """Topic of the records."""
        return self.owner.topic

    @property
    def partition(self) -> int:
        """Partition number of the records."""
        return self.owner.partition

    @property
    def token(self) -> str:
        """Name of these records wherever they are stored; the same for each worker that cuts the range."""
        return f"{self.owner.topic_id}/{self.partition}/{self.first}-{self.last}"

    @property
    def again(self) -> bool:
        """True if an earlier owner committed this range, and may have stored some of it."""
        return not self.replayed and self.last <= self.owner.inherited_to

    @property
    def committed_at(self) -> float:
        """Time of the partition's last commit that the broker accepted, by `lease_clock`."""
        return self.owner.committed_at

    @property
    def newest(self) -> int:
        """Timestamp of the last record, or a later one of the same batch; ms."""
        return self._parts[-1].newest

    def slices(self) -> Iterator[RecordColumns]:
        """Read the records, in order, some thousands at a time: so they stay in the CPU's cache.

        Raises:
            HaltError: the log is damaged.
        """
        kept = []
        for parts in _portions(self._parts):
            columns = self._read(parts)
            kept.append((columns.offsets, columns.timestamps, columns.keys.lengths, columns.keys.joined()))
            yield columns
        offsets, timestamps, lengths, keys = zip(*kept, strict=True)
        self._places = _Places(
            np.concatenate(offsets), np.concatenate(timestamps), Spans.consecutive(keys, np.concatenate(lengths))
        )

    @property
    def records(self) -> RecordColumns:
        """All records, in the order of their offsets; each use reads them, which takes time. Raises as `slices`."""
        return self._read(self._parts)

    def records_at(self, positions: Iterable[int]) -> Iterator[ColumnRecord]:
        """Read some of the records; of one batch after the other, each batch is read once. Raises as `slices`."""
        stops = np.cumsum([len(part) for part in self._parts])
        number, columns = -1, None
        for position in positions:
            at = int(np.searchsorted(stops, position, side="right"))
            if columns is None or at != number:
                number, columns = at, self._read([self._parts[at]])
            yield columns[position - int(stops[at])]

    @property
    def keys(self) -> Spans:
        """Keys of the records, in order; raises as `slices`, like the next two."""
        return self._known().keys

    @property
    def timestamps(self) -> Ints:
        """Timestamps of the records in ms, in order."""
        return self._known().timestamps

    @property
    def offsets(self) -> Ints:
        """Offsets of the records, in order; there may be gaps."""
        return self._known().offsets

    def _known(self) -> "_Places":
        if self._places is None:
            for _ in self.slices():
                pass
        assert self._places is not None
        return self._places

    def _read(self, parts: Sequence[LogPart]) -> RecordColumns:
        try:
            return read(parts)
        except DamagedBatchError as error:
            way_out = way_past(error.offsets, behind_all=False)
            raise damaged_log(self.topic, self.partition, str(error), way_out) from None

    @property
    def live(self) -> bool:
        """True while this worker owns the partition; after that, another worker gets these records."""
        return self.owner.live

    def ack(self) -> None:
        """Say that the records are stored, so that their offsets may be committed. Ignored if it isn't live.

        Each agent that gets the micro-batch calls this once: ingest, and the deriver if the topic has one. The last
        call acknowledges it. A replayed micro-batch is acknowledged by the deriver alone.
        """
        self.owner.ack(self)


class _Places(NamedTuple):
    """Offsets, timestamps and keys of records."""

    offsets: Ints
    timestamps: Ints
    keys: Spans


def _portions(parts: Sequence[LogPart]) -> Iterator[Sequence[LogPart]]:
    """Split parts of the log into those that are read at once."""
    portion, rows = list[LogPart](), 0
    for part in parts:
        portion.append(part)
        rows += len(part)
        if rows >= _PORTION:
            yield portion
            portion, rows = [], 0
    if portion:
        yield portion
