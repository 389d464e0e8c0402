"""Answers of the group's coordinator whose errors aiokafka overlooks: none passes for a group without commits."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from aiokafka.protocol.commit import (
    OffsetCommitRequest,
    OffsetCommitResponse_v3,
    OffsetFetchRequest,
    OffsetFetchResponse_v1,
    OffsetFetchResponse_v3,
)
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as Place

from pipeline.errors import HaltError
from pipeline.transport.adapter.answers import MovedError, OverlookedError, check_committed, check_fetched
from pipeline.transport.adapter.coordinator import CheckedCoordinator
from pipeline.transport.adapter.static_member import naming_instance

FIRST, SECOND = Place("events", 0), Place("events", 1)
_MOVED = {15: "COORDINATOR_NOT_AVAILABLE", 16: "NOT_COORDINATOR"}
_PASSING = {-1: "UNKNOWN_SERVER_ERROR", 3: "UNKNOWN_TOPIC", 14: "LOAD_IN_PROGRESS", 88: "UNSTABLE_OFFSET_COMMIT"}
_FINAL = {24: "INVALID_GROUP_ID", 35: "UNSUPPORTED_VERSION", 42: "INVALID_REQUEST", 82: "FENCED_INSTANCE_ID"}


def _fetched(*partitions: tuple[int, int, str, int], of_group: int = 0) -> Any:
    return OffsetFetchResponse_v3(0, [("events", list(partitions))] if partitions else [], of_group)


def _committed(*partitions: tuple[int, int]) -> Any:
    return OffsetCommitResponse_v3(0, [("events", list(partitions))])


@pytest.mark.parametrize(
    "answer_with",
    [
        pytest.param(lambda code: _fetched(of_group=code), id="of the group"),
        pytest.param(lambda code: _fetched((0, 5, "", 0), (1, -1, "", code)), id="of a partition"),
    ],
)
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        *[pytest.param(code, MovedError, id=name) for code, name in _MOVED.items()],
        *[pytest.param(code, OverlookedError, id=name) for code, name in _PASSING.items()],
        *[pytest.param(code, HaltError, id=name) for code, name in _FINAL.items()],
        pytest.param(30, GroupAuthorizationFailedError, id="GROUP_AUTHORIZATION_FAILED"),
        pytest.param(29, TopicAuthorizationFailedError, id="TOPIC_AUTHORIZATION_FAILED"),
    ],
)
def test_an_error_is_no_answer_without_commits(
    answer_with: Callable[[int], Any], code: int, expected: type[Exception]
) -> None:
    """An error that passes is tried again, and any other one is told, wherever it stands in the answer."""
    with pytest.raises(expected) as caught:
        check_fetched("group", [FIRST, SECOND], answer_with(code))
    assert type(caught.value) is expected
    if isinstance(caught.value, OverlookedError):
        assert caught.value.retriable


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(_fetched(), id="nothing"),
        pytest.param(_fetched((0, 5, "", 0)), id="one of two"),
        pytest.param(OffsetFetchResponse_v1([]), id="nothing in version 1"),
    ],
)
def test_a_partition_that_the_answer_leaves_out_is_asked_for_again(answer: Any) -> None:
    """Silence about a partition isn't the answer that it has no commit."""
    with pytest.raises(OverlookedError, match=r"no answer about .*events-1"):
        check_fetched("group", [FIRST, SECOND], answer)


def test_an_answer_about_each_partition_passes() -> None:
    """With or without a commit."""
    check_fetched("group", [FIRST, SECOND], _fetched((0, 5, "", 0), (1, -1, "", 0)))
    check_committed("group", [FIRST, SECOND], _committed((0, 0), (1, 0)))


def test_a_commit_that_the_answer_leaves_out_is_not_taken() -> None:
    """The commit is made again."""
    with pytest.raises(OverlookedError, match="no answer about events-1"):
        check_committed("group", [FIRST, SECOND], _committed((0, 0)))


class _Client:
    """Brokers that answer a request with the next of some answers."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.lookups = 0

    async def send(self, *_: Any, **__: Any) -> Any:
        return self.answers.pop(0)

    async def coordinator_lookup(self, *_: Any) -> int:
        self.lookups += 1
        return self.lookups

    async def ready(self, *_: Any, **__: Any) -> bool:
        return True


def _coordinator(client: _Client) -> CheckedCoordinator:
    """Return a coordinator without its background tasks."""
    coordinator = CheckedCoordinator.__new__(CheckedCoordinator)
    coordinator.__dict__ |= {
        "_client": client,
        "_closing": asyncio.get_running_loop().create_future(),
        "_coordinator_dead_fut": asyncio.get_running_loop().create_future(),
        "_coordinator_lookup_lock": asyncio.Lock(),
        "_retry_backoff_ms": 1,
        "coordinator_id": None,
        "group_id": "group",
        "generation": 1,
        "member_id": "member",
    }
    return coordinator


@pytest.mark.parametrize(("code", "lookups"), [(14, 1), (15, 2), (16, 2), (88, 1)])
def test_an_error_of_the_group_is_tried_again(code: int, lookups: int) -> None:
    """The coordinator is found anew if it has moved."""
    client = _Client(_fetched(of_group=code), _fetched((0, 5, "seven", 0)))
    commits = asyncio.run(_ask(client, lambda coordinator: coordinator.fetch_commits([FIRST])))
    assert commits == {FIRST: OffsetAndMetadata(5, "seven")}
    assert client.lookups == lookups


@pytest.mark.parametrize("second", [{FIRST: OffsetAndMetadata(5, "")}, {}], ids=["found", "none"])
def test_a_partition_without_a_commit_is_asked_for_twice(second: dict[Place, OffsetAndMetadata]) -> None:
    """The second time, the coordinator that the cluster names by then is asked."""
    client = _Client(_fetched((0, -1, "", 0)), _fetched((0, 5 if second else -1, "", 0)))
    assert asyncio.run(_ask(client, lambda coordinator: coordinator.fetch_commits([FIRST]))) == second
    assert client.answers == []
    assert client.lookups == 3, "at first, before the second time, and as another broker was named"


def test_each_request_is_checked() -> None:
    """Aiokafka itself would take each of these answers for a success."""
    commit = OffsetCommitRequest("group", 1, "member", -1, [("events", [(0, 5, "")])])
    for request, answer in (
        (OffsetFetchRequest("group", [("events", [0])]), _fetched(of_group=14)),
        (commit, _committed()),
        (naming_instance(commit, "instance"), _committed()),
    ):
        with pytest.raises(KafkaError):
            asyncio.run(_send(_Client(answer), request))


async def _ask(client: _Client, ask: Callable[[CheckedCoordinator], Any]) -> Any:
    return await ask(_coordinator(client))


async def _send(client: _Client, request: Any) -> Any:
    coordinator = _coordinator(client)
    await coordinator.ensure_coordinator_known()
    return await coordinator._send_req(request)
