"""A micro-batch, and the state of a partition that is committed for it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from pipeline.columns import Ints, Rows
from pipeline.transport.commit_metadata import Closing, JointInsert
from pipeline.transport.shared import Shared


class Record(Protocol):
    """Kafka record, as any client returns it."""

    @property
    def offset(self) -> int: ...  # noqa: D102 (Kafka's meaning, as all below)
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...  # noqa: D102


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
        records: records in the order of their offsets; at least one.
        size: bytes of all keys, values and headers.
        acks: number of acknowledgements that it takes.
        replayed: True if the records are stored already, and are delivered again for the deriver alone.
    """

    __slots__ = ("_timestamps", "acks", "decoded", "first", "last", "owner", "records", "replayed", "size")

    def __init__(
        self,
        owner: Owner,
        first: int,
        last: int,
        records: Sequence[Record],
        size: int,
        *,
        acks: int = 1,
        replayed: bool = False,
    ) -> None:
        self.owner = owner
        self.first = first
        self.last = last
        self.records = records
        self.size = size
        self.acks = acks
        self.replayed = replayed
        self._timestamps: Ints | None = None
        self.decoded: Shared[Rows] = Shared()
        """Rows that ingest decodes; other agents wait for them."""

    def __len__(self) -> int:
        return len(self.records)

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
    def values(self) -> list[bytes | None]:
        """Values of the records, in order."""
        return [record.value for record in self.records]

    @property
    def timestamps(self) -> Ints:
        """Timestamps of the records in ms, in order; gathered once for all readers."""
        if self._timestamps is None:
            self._timestamps = np.array([record.timestamp for record in self.records], np.int64)
        return self._timestamps

    @property
    def offsets(self) -> Ints:
        """Offsets of the records, in order; there may be gaps."""
        first, last = self.records[0].offset, self.records[-1].offset
        if last - first == len(self.records) - 1:
            return np.arange(first, last + 1, dtype=np.int64)
        return np.array([record.offset for record in self.records], np.int64)

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
