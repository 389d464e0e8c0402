"""The commits of a consumer group, read from the broker's log of commits."""

import struct
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from confluent_kafka import Consumer, Message, TopicPartition
from support.kafka_requests import watermarks

from pipeline.config import KafkaSettings
from pipeline.kafka.client import client_config
from pipeline.transport.commit_metadata import Closing, Ranges, parse

_TOPIC = "__consumer_offsets"
_KEY_VERSIONS = {0, 1}  # key versions of commits; other keys describe group members
_VALUE_VERSION = 4  # value version that the development stack's broker writes
_SECONDS = 120.0

Place = tuple[str, int]
"""Topic and partition."""


class _Commit(NamedTuple):
    place: Place
    offset: int
    ranges: Ranges


class Commits:
    """The commits of a group since this object was made, and the closings by the clock in them.

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
        """Return the valid closings of each partition.

        A closing is valid if the first commit beyond its offset contains it. While no commit goes beyond its offset, it
        is valid as long as the last commit contains it. A closing from an unanswered commit that the next commit leaves
        out is never valid.
        """
        self._read()
        return {place: self._gone_by[place] | latest for place, latest in self._latest.items()}

    def close(self) -> None:
        """Close the connection to the broker."""
        self._consumer.close()

    def _read(self) -> None:
        ends = self._ends()
        for number in ends:
            self._positions.setdefault(number, 0)  # the topic is created with the first group
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
        """Return the commit in a message; None if it is of another group or has no ranges."""
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
        """Return the end offset of each partition of the commit log; empty if the topic doesn't exist."""
        topic = self._consumer.list_topics(_TOPIC, _SECONDS).topics[_TOPIC]
        partitions = [TopicPartition(_TOPIC, number) for number in topic.partitions]
        return {tp.partition: watermarks(self._consumer, tp)[1] for tp in partitions}


def _text(data: bytes) -> tuple[str, bytes]:
    """Decode a text with a length prefix; return it and the rest of the data."""
    end = 2 + struct.unpack_from(">h", data)[0]
    return data[2:end].decode(), data[end:]


def _compact_text(data: bytes) -> str:
    """Decode a text whose prefix is its length plus one, as a varint with the lowest seven bits first."""
    length = shift = start = 0
    while data[start] & 0x80:
        length |= (data[start] & 0x7F) << shift
        start, shift = start + 1, shift + 7
    length |= data[start] << shift
    return data[start + 1 : start + length].decode()
