"""Commits that the broker refuses: for good, which halts the worker, or for now, which makes it try again."""

from typing import Any

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from aiokafka.protocol.commit import OffsetCommitResponse_v3
from aiokafka.structs import TopicPartition as Place

from pipeline.errors import HaltError
from pipeline.transport.adapter.answers import check_committed

FIRST, SECOND = Place("events", 0), Place("events", 1)
_NEWEST_CODE = 135  # of Kafka 4.3
_MISSING_ACL = {29: TopicAuthorizationFailedError, 30: GroupAuthorizationFailedError}
_MEMBERSHIP = {22, 25, 27}  # aiokafka joins the group again
_PASSING = {
    *(-1, 3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 19, 20, 41, 56),
    *(23, 74, 75, 78, 81, 88, 89, 100, 110, 111, 113),
}


def _answer(first: int, second: int) -> Any:
    return OffsetCommitResponse_v3(0, [("events", [(0, first), (1, second)])])


@pytest.mark.parametrize(
    ("code", "said"),
    [
        pytest.param(12, "events-1: Kafka refuses for good: OFFSET_METADATA_TOO_LARGE", id="metadata"),
        pytest.param(12, "set offset.metadata.max.bytes of the brokers to 4096 or more", id="advice for metadata"),
        pytest.param(28, "events-1: Kafka refuses for good: INVALID_COMMIT_OFFSET_SIZE", id="size"),
        pytest.param(24, "group orders, events-1: Kafka refuses for good: INVALID_GROUP_ID", id="group's name"),
        pytest.param(35, "UNSUPPORTED_VERSION", id="version"),
        pytest.param(82, "another worker has the same instance id", id="fenced"),
        pytest.param(99, "unknown error (code 99)", id="code without a name"),
    ],
)
@pytest.mark.parametrize("other", [0, 3, 16, 22], ids=["taken", "unknown topic", "moved", "fenced"])
def test_a_commit_that_is_refused_for_good_halts_with_its_reason(code: int, said: str, other: int) -> None:
    """The message names group, partition and error, whatever the other partition's error is."""
    with pytest.raises(HaltError) as caught:
        check_committed("orders", [FIRST, SECOND], _answer(other, code))
    assert said in str(caught.value)


@pytest.mark.parametrize("code", range(-1, _NEWEST_CODE))
def test_each_error_of_a_commit_has_a_kind(code: int) -> None:
    """Only errors that pass, and lost membership, are left to aiokafka, which raises or repeats them."""
    expected: type[Exception] | None = _MISSING_ACL.get(code, HaltError)
    if code == 0 or code in _MEMBERSHIP | _PASSING:
        expected = None
    try:
        check_committed("orders", [FIRST, SECOND], _answer(0, code))
        raised = None
    except (HaltError, KafkaError) as error:
        raised = type(error)
    assert raised is expected
