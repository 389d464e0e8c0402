"""Offsets of the records that are dead letters, read from a dead-letter topic.

Dead letters that are requeued or dropped count as well: their records are dealt with, and a requeued record has an
offset of its own. The places are in a temporary SQLite database that moves to disk as it grows, so memory is bounded.
"""

import sqlite3
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME

from pipeline.catalog import Family
from pipeline.columns import Ints
from pipeline.config import KafkaSettings
from pipeline.dlq.headers import error_facts
from pipeline.dlq.letters import read_letter, read_record, record_time
from pipeline.dlq.receipts import read_receipt
from pipeline.errors import HaltError
from pipeline.kafka.offsets import TopicReader

_TABLE = "CREATE TABLE places (partition INT, offset INT, time INT, PRIMARY KEY (partition, offset)) WITHOUT ROWID"
# Topics that are created anew have the same offsets again: the newest record counts.
_ADD = """
INSERT INTO places VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET time = max(time, excluded.time)
"""
_FIND = "SELECT offset FROM places WHERE partition = ? AND offset >= ? AND offset < ? AND time >= ? ORDER BY offset"
_ANY_TIME = 2**62  # of a dead letter from a version that noted no time of the record
_BATCH = 1_000


class _Place(NamedTuple):
    partition: int
    offset: int
    time: int


class Lettered:
    """Offsets of dead-lettered records by partition of their source topic.

    Args:
        kept_since: time in ms of the oldest dead letter that retention has kept; None if it has deleted none.
    """

    def __init__(self, kept_since: float | None = None) -> None:
        self._kept_since = kept_since
        self._database = sqlite3.connect("")  # a file without a name, gone when it is closed
        self._database.execute(_TABLE)

    def add(self, places: Iterator[tuple[int, int, int]]) -> None:
        """Add partition and offset of records, with their timestamps in ms; the same place may come again."""
        while some := list(islice(places, _BATCH)):
            self._database.executemany(_ADD, some)

    def offsets(self, partition: int, within: range, since: int = 0) -> Ints:
        """Return the offsets of dead-lettered records, ascending.

        Args:
            partition: of the source topic.
            within: offsets to look at.
            since: time of the first record of the log in ms, as `begun_at` gives it; records from before are of an
                earlier topic of this name.
        """
        found = self._database.execute(_FIND, (partition, within.start, within.stop, since))
        return np.fromiter((offset for (offset,) in found), np.int64)

    def may_have_gone(self, timestamps: Ints) -> np.typing.NDArray[np.bool_]:
        """Return the mask of records whose dead letters retention may have deleted, by their timestamps in ms."""
        if self._kept_since is None:
            return np.zeros(len(timestamps), np.bool_)
        return np.asarray(timestamps) <= self._kept_since


def read_lettered(settings: KafkaSettings, family: Family, progress: Callable[[int, int], None]) -> Lettered:
    """Read the dead-letter topic of a family.

    Args:
        settings: the broker.
        family: owner of the dead letters.
        progress: called with the number of offsets read, and with their total.

    Raises:
        UnavailableError: the broker doesn't answer.
        HaltError: it refuses, or the topic is missing.
    """
    with TopicReader(settings, family.dead_letters.name) as reader:
        ranges = reader.ranges()
        lettered = Lettered(_kept_since(reader, ranges))
        lettered.add(_places(family.topic.name, reader, ranges, progress))
    return lettered


def begun_at(reader: TopicReader, partition: int, log: range) -> int:
    """Return the time of a log's first record in ms; 0 without one, or if the broker doesn't set the times.

    It is also 0 if the log is damaged there.
    """
    try:
        for messages in reader.batches(partition, log):
            kind, time = messages[0].timestamp()
            return int(time) if kind == TIMESTAMP_LOG_APPEND_TIME else 0
    except HaltError:  # who reads these records learns it
        return 0
    return 0


def _places(
    source: str, reader: TopicReader, ranges: dict[int, range], progress: Callable[[int, int], None]
) -> Iterator[_Place]:
    for message in reader.read(ranges, progress):
        record = read_record(message)
        if read_receipt(record):
            continue
        letter = read_letter(source, record)
        if letter.source_partition is not None and letter.source_offset is not None:
            at = record_time(error_facts(record.headers))
            time = _ANY_TIME if at is None else round(at.timestamp() * 1000)
            yield _Place(letter.source_partition, letter.source_offset, time)


def _kept_since(reader: TopicReader, ranges: dict[int, range]) -> float | None:
    """Return the latest of the times of the partitions' oldest dead letters; None if retention deleted none."""
    times = [_first_time(reader, number, offsets) for number, offsets in ranges.items() if offsets.start > 0]
    return max(times, default=None)


def _first_time(reader: TopicReader, partition: int, offsets: range) -> float:
    for messages in reader.batches(partition, offsets):
        return messages[0].timestamp()[1]
    return float("inf")  # retention has deleted all
