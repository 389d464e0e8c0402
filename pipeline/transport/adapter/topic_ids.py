"""Ids of topics, asked for through aiokafka.

aiokafka's own metadata has no ids: they came with version 10 of the request. librdkafka's DescribeTopics has them, but
ends the process when the broker falls silent while it waits.
"""

from base64 import b64encode
from collections.abc import Iterable
from io import BytesIO
from typing import Any

from aiokafka.client import ConnectionGroup
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    InvalidTopicError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

from pipeline.transport.adapter.exact import ExactRequest

_TEXT = CompactString("utf-8")
_MISSING = UnknownTopicOrPartitionError.errno, InvalidTopicError.errno
_NO_ID = bytes(16)


class _Uuid(AbstractType[bytes]):
    """16 bytes."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


_BROKER = (("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), ("tags", TaggedFields))
_PARTITION = (
    ("error_code", Int16),
    ("partition", Int32),
    ("leader", Int32),
    ("leader_epoch", Int32),
    ("replicas", CompactArray(Int32)),
    ("isr", CompactArray(Int32)),
    ("offline", CompactArray(Int32)),
    ("tags", TaggedFields),
)
_TOPIC = (
    ("error_code", Int16),
    ("topic", _TEXT),
    ("topic_id", _Uuid),
    ("is_internal", Boolean),
    ("partitions", CompactArray(*_PARTITION)),
    ("authorized_operations", Int32),
    ("tags", TaggedFields),
)


class _MetadataAnswerV10(Response):
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", CompactArray(*_BROKER)),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        ("topics", CompactArray(*_TOPIC)),
        ("authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataV10(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _MetadataAnswerV10
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("topic", _TEXT), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


async def topic_ids(client: Any, coordinator: Any, topics: Iterable[str]) -> dict[str, str]:
    """Return the ids of the topics that exist, by name: 22 characters of Base64.

    The group's coordinator is asked, over the connection for commits: on another one, a fetch would delay the request.

    Args:
        client: aiokafka's.
        coordinator: aiokafka's group coordinator.
        topics: names.

    Raises:
        aiokafka.errors.KafkaError: the broker doesn't answer, or not now, or the user may not see a topic.
    """
    await coordinator.ensure_coordinator_known()
    if coordinator.coordinator_id is None:
        raise GroupCoordinatorNotAvailableError
    asked: list[Any] = [(_NO_ID, topic, {}) for topic in topics]
    request = ExactRequest(_MetadataV10(asked, False, False, False, {}))
    answer = await client.send(coordinator.coordinator_id, request, group=ConnectionGroup.COORDINATION)
    ids = {}
    for error_code, topic, topic_id, *_ in answer.topics:
        if error_code == TopicAuthorizationFailedError.errno:
            raise TopicAuthorizationFailedError(topic)
        if error_code and error_code not in _MISSING:
            raise for_code(error_code)(topic)
        if not error_code:
            ids[topic] = b64encode(topic_id).decode().rstrip("=")
    return ids
