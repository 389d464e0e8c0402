"""Committed offsets as the commands read them: an error isn't the answer that there is no commit."""

from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import KafkaError

from pipeline.config import KafkaSettings
from pipeline.errors import HaltError, UnavailableError
from pipeline.kafka.offsets import TopicReader


@dataclass
class _Place:
    """Partition with the error that librdkafka puts beside its offset."""

    error: KafkaError | None
    partition: int = 0
    offset: int = -1001


class _Consumer:
    """Client of a broker that answers with this code."""

    def __init__(self, code: int) -> None:
        self._code = code

    def committed(self, *_: Any) -> list[_Place]:
        return [_Place(KafkaError(self._code) if self._code else None)]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param(KafkaError.UNSTABLE_OFFSET_COMMIT, UnavailableError, id="unstable"),
        pytest.param(KafkaError.NOT_COORDINATOR, UnavailableError, id="moved"),
        pytest.param(KafkaError.TOPIC_AUTHORIZATION_FAILED, HaltError, id="forbidden"),
    ],
)
def test_an_error_of_one_partition_is_no_missing_commit(code: int, expected: type[Exception]) -> None:
    """The error stands beside an offset that looks like none."""
    with pytest.raises(expected):
        _reader(code).committed([0])


def test_a_partition_without_an_error_and_an_offset_has_no_commit() -> None:
    """The group has committed nothing."""
    assert _reader(0).committed([0]) == {0: None}


def _reader(code: int) -> TopicReader:
    reader = TopicReader(KafkaSettings(bootstrap_servers="127.0.0.1:1"), "events", probe_seconds=0.1)
    reader.close()
    reader.__dict__["_consumer"] = _Consumer(code)
    return reader
