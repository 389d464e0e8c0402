"""Answers of the group coordinator to heartbeats: a passing error is forgotten with the next good answer."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.protocol.group import HeartbeatRequest

from pipeline.transport.adapter.group_answers import GroupRefusalError
from pipeline.transport.adapter.joining import Joining


async def _troubles(codes: list[int], *, unclear_seconds: float = 60.0) -> list[bool]:
    """Return if there is a trouble after each answer to a heartbeat; no failure halts."""
    loop = asyncio.get_running_loop()
    answers, halted = iter(codes), list[BaseException]()

    async def send(_: Any) -> Any:
        return SimpleNamespace(error_code=next(answers))

    coordinator = SimpleNamespace(
        _group_instance_id=None,
        _send_req=send,
        _coordination_task=loop.create_future(),
        _closing=loop.create_future(),
        group_id="group",
    )
    coordinator._closing.set_result(None)  # so that no pause is made
    joining = Joining(
        coordinator,
        logging.getLogger("test"),
        halted.append,
        pause_seconds=0.0,
        unclear_seconds=unclear_seconds,
        silent_seconds=60.0,
    )
    troubles = []
    for code in codes:
        if code:
            with pytest.raises(GroupRefusalError):
                await coordinator._send_req(HeartbeatRequest("group", 1, "member"))
        else:
            await coordinator._send_req(HeartbeatRequest("group", 1, "member"))
        troubles.append(joining.trouble is not None)
    assert halted == []
    return troubles


def test_a_heartbeat_that_is_answered_again_ends_the_trouble() -> None:
    """No other answer tells the worker that it is in its group."""
    assert asyncio.run(_troubles([7, 7, 0, 0, 13, 0])) == [True, True, False, False, True, False]


def test_unclear_heartbeats_count_together_only_without_a_good_one_in_between() -> None:
    """Two errors half an hour apart aren't half an hour without a membership."""
    assert asyncio.run(_troubles([120, 0, 120], unclear_seconds=1e-9)) == [True, False, True]
