"""Errors that aiokafka's tasks would keep for their user."""

import asyncio
import logging
from typing import Any

from pipeline.errors import HaltError
from pipeline.transport.adapter.joining import Joining


class _Coordinator:
    """aiokafka's coordinator, as far as `Joining` uses it."""

    group_id = "group"
    _group_instance_id = None

    def __init__(self) -> None:
        self.rejoins = 0
        self._closing = asyncio.get_running_loop().create_future()
        self._coordination_task = asyncio.get_running_loop().create_future()

    async def _send_req(self, request: Any) -> Any:
        return request

    def request_rejoin(self) -> None:
        self.rejoins += 1


def test_a_refusal_of_a_task_that_reads_commits_halts_at_once() -> None:
    """It is told as it is, and not tried again for a minute."""
    halted: list[HaltError] = []
    refusal = HaltError("group group: Kafka refuses for good: INVALID_GROUP_ID (code 24)")

    async def scenario() -> None:
        coordinator: Any = _Coordinator()
        joining = Joining(
            coordinator,
            logging.getLogger("joining"),
            halted.append,
            pause_seconds=0.01,
            unclear_seconds=60.0,
            silent_seconds=60.0,
        )
        await coordinator._push_error_to_user(refusal)
        assert coordinator.rejoins == 1, "aiokafka would spin around its failed task"
        assert joining.trouble is None

    asyncio.run(scenario())
    assert halted == [refusal]
