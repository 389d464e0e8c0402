"""Records that have neither a row nor a dead letter: read from the log, decoded and judged.

An offset without a record is no loss. Nor is a row that the table's TTL has expired, or that a newer row of the same
key has replaced. What remains is lost.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from confluent_kafka import Message

from pipeline.catalog import Family
from pipeline.clickhouse.ttl import expired_times
from pipeline.columns import Ints, Mask, Rows, core, select
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.kafka.offsets import TopicReader, offset_of
from pipeline.kafka.registry import registry_of
from pipeline.operations.lineage.lettered import Lettered
from pipeline.operations.lineage.twins import Twins
from pipeline.privacy.hashing import Hasher
from pipeline.privacy.sanitise import Sanitiser

_NEAR = 2_000  # offsets that are read along, because a new fetch takes longer
_RECORDS = 20_000  # that are judged together
_ANY_KEY = b"the rows are thrown away"


class Verdict(NamedTuple):
    """Verdict on some records: offsets, ascending, by what they are."""

    read: Ints
    """All of them."""
    rows: Ints
    """Records whose row is missing without an explanation."""
    times: Ints
    """Event time of these in ms."""
    letters: Ints
    """Records that would be rejected today, and have no dead letter."""
    expired: int
    replaced: int
    unknown: int
    deleted: int
    """Records that would be rejected today, whose dead letters retention may have deleted."""


@dataclass(slots=True)
class Missing:
    """Reads and judges records of one family.

    Args:
        settings: the registry and the limits of validation.
        family: the family.
        reader: of its topic; it leaves out records that aren't committed.
        client: connected to ClickHouse, with the table's database as default.
        lettered: dead letters of the family.
        of_day: mask of the times in ms that are looked at.
        known_from: first offset with a row by partition, if the table also has rows without coordinates; else None.
    """

    settings: Settings
    family: Family
    reader: TopicReader
    client: Any
    lettered: Lettered
    of_day: Callable[[Ints], Mask]
    known_from: Mapping[int, int] | None
    _decoder: Decoder = field(init=False)
    _twins: Twins = field(init=False)

    def __post_init__(self) -> None:
        core.choose(use=self.settings.worker.compiled_core)
        registry = registry_of(self.settings.registry)
        sanitise = Sanitiser(self.family.schema, Hasher(_ANY_KEY))  # it may reject records; the hashes aren't used
        self._decoder = Decoder(self.family, registry, self.settings.validation, sanitise=sanitise)
        self._twins = Twins(self.client, self.family)

    def judge(self, partition: int, offsets: Ints, progress: Callable[[int], None]) -> Iterator[Verdict]:
        """Read the records at these ascending offsets, and yield verdicts; offsets without a record have none.

        Args:
            partition: of the topic.
            offsets: offsets without a row and without a dead letter.
            progress: called with the number of offsets that are done.

        Raises:
            UnavailableError, HaltError: Kafka or the registry doesn't answer, or refuses.
            clickhouse_driver.errors.Error, OSError, EOFError: wrap the call in `pipeline.clickhouse.client.explained`.
        """
        found: list[Message] = []
        for messages in self._read(partition, offsets):
            found += messages
            if len(found) >= _RECORDS:
                yield self._judged(found)
                progress(int(np.searchsorted(offsets, offset_of(found[-1]), "right")))
                found = []
        if found:
            yield self._judged(found)

    def _read(self, partition: int, offsets: Ints) -> Iterator[list[Message]]:
        breaks = np.flatnonzero(np.diff(offsets) > _NEAR) + 1
        starts, ends = [0, *breaks.tolist()], [*breaks.tolist(), len(offsets)]
        for start, end in zip(starts, ends, strict=True):
            run = offsets[start:end]
            for messages in self.reader.batches(partition, range(int(run[0]), int(run[-1]) + 1)):
                at = np.fromiter(map(offset_of, messages), np.int64, len(messages))
                wanted = np.isin(at, run, assume_unique=True)
                yield [message for message, is_wanted in zip(messages, wanted.tolist(), strict=True) if is_wanted]

    def _judged(self, messages: Sequence[Message]) -> Verdict:
        offsets = np.fromiter(map(offset_of, messages), np.int64, len(messages))
        timestamps = np.fromiter((message.timestamp()[1] for message in messages), np.int64, len(messages))
        decoded = self._decoder.decode([message.value() for message in messages], timestamps)
        rejected = np.array([rejection.position for rejection in decoded.rejections], np.int64)
        gone = self.lettered.may_have_gone(timestamps[rejected])
        kept, counts = self._unexplained(decoded)
        return Verdict(
            read=offsets,
            rows=offsets[kept.positions],
            times=np.asarray(kept.columns["ts"], np.int64),
            letters=offsets[rejected[~gone]],
            **counts,
            deleted=int(gone.sum()),
        )

    def _unexplained(self, decoded: Rows) -> tuple[Rows, dict[str, int]]:
        """Return the rows whose absence nothing explains, and the number of the others by explanation."""
        left = _kept(decoded, self.of_day(np.asarray(decoded.columns["ts"])))
        explanations: dict[str, Callable[[Rows], Mask]] = {
            "expired": lambda rows: expired_times(self.client, self.family.table, "ts", np.asarray(rows.columns["ts"])),
            "replaced": self._twins.newer,
            "unknown": self._twins.without_coordinates if self.known_from is not None else _none,
        }
        counts = {}
        for name, explains in explanations.items():
            explained = explains(left) if len(left) else _none(left)
            counts[name] = int(explained.sum())
            left = _kept(left, ~explained)
        return left, counts


def _none(rows: Rows) -> Mask:
    return np.zeros(len(rows), np.bool_)


def _kept(rows: Rows, keep: Mask) -> Rows:
    columns = {name: select(column, keep) for name, column in rows.columns.items()}
    return Rows(columns, rows.positions[keep], rows.rejections)
