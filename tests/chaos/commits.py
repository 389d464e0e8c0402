"""What a consumer group has committed, commit by commit: from the broker's own log of it."""

import struct
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from confluent_kafka import Consumer, Message, TopicPartition

from pipeline.config import KafkaSettings
from pipeline.kafka.client import client_config
from pipeline.transport.commit_metadata import Closing, Ranges, parse

_TOPIC = "__consumer_offsets"
_KEY_VERSIONS = {0, 1}  # of the keys that are commits; others are of the groups' members
_VALUE_VERSION = 4  # what the broker of the development stack writes
_SECONDS = 30.0

Place = tuple[str, int]
"""Topic and partition."""


class _Commit(NamedTuple):
    place: Place
    offset: int
    ranges: Ranges


class Commits:
    """The commits of a group since this was made: which windows the clock has closed, as the broker has it.

    Args:
        settings: broker and group.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._group = settings.group_id
        self._consumer = Consumer(
            {**client_config(settings), "group.id": f"{settings.group_id}-commits", "log_level": 0}
        )
        self._positions = self._ends()
        self._gone_by: defaultdict[Place, set[Closing]] = defaultdict(set)
        self._latest: dict[Place, set[Closing]] = {}

    def closings(self) -> Mapping[Place, set[Closing]]:
        """The closings that count, of each partition.

        A closing counts once the log has gone on after it, in the first commit that goes beyond its offset; or as long
        as it is in the last commit, and the log hasn't gone on. What a commit without an answer has recorded, and the
        next one has left out, never counts.
        """
        self._read()
        return {place: self._gone_by[place] | latest for place, latest in self._latest.items()}

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()

    def _read(self) -> None:
        ends = self._ends()
        for number in ends:
            self._positions.setdefault(number, 0)  # the topic wasn't there before the first group was
        self._consumer.assign([TopicPartition(_TOPIC, number, at) for number, at in self._positions.items()])
        while any(self._positions[number] < end for number, end in ends.items()):
            message = self._consumer.poll(_SECONDS)
            assert message is not None, "the group's commits can't be read"
            assert message.error() is None, message.error()
            self._positions[message.partition() or 0] = (message.offset() or 0) + 1
            if commit := self._commit(message):
                self._note(commit)

    def _note(self, commit: _Commit) -> None:
        beyond = commit.ranges.ends[-1] + 1 if commit.ranges.ends else commit.offset
        closings = set(commit.ranges.closings)
        passed = {closing for closing in closings if closing.offset < beyond}
        self._gone_by[commit.place] |= passed
        self._latest[commit.place] = closings - passed

    def _commit(self, message: Message) -> _Commit | None:
        """What is committed with it, if it is of our group and of micro-batches."""
        key, value = message.key() or b"", message.value()
        if struct.unpack_from(">h", key)[0] not in _KEY_VERSIONS or value is None:
            return None
        group, rest = _text(key[2:])
        topic, rest = _text(rest)
        if group != self._group:
            return None
        version, offset, _epoch = struct.unpack_from(">hqi", value)
        assert version == _VALUE_VERSION, version
        ranges = parse(_compact_text(value[14:]), topic, offset)
        return _Commit((topic, struct.unpack(">i", rest)[0]), offset, ranges) if ranges else None

    def _ends(self) -> dict[int, int]:
        """Offset after the last commit of each partition of the topic; none when it isn't there."""
        topic = self._consumer.list_topics(_TOPIC, _SECONDS).topics[_TOPIC]
        partitions = [TopicPartition(_TOPIC, number) for number in topic.partitions]
        return {tp.partition: self._consumer.get_watermark_offsets(tp, _SECONDS)[1] for tp in partitions}


def _text(data: bytes) -> tuple[str, bytes]:
    """A text that its length is written before, and what follows it."""
    end = 2 + struct.unpack_from(">h", data)[0]
    return data[2:end].decode(), data[end:]


def _compact_text(data: bytes) -> str:
    """A text that its length, plus one, is written before: seven bits to a byte, the lowest first."""
    length = shift = start = 0
    while data[start] & 0x80:
        length |= (data[start] & 0x7F) << shift
        start, shift = start + 1, shift + 7
    length |= data[start] << shift
    return data[start + 1 : start + length].decode()
