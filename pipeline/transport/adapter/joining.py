"""Joining a group, however it is refused: what passes is tried again, and what doesn't ends the worker.

aiokafka itself stops coordinating at an error that it doesn't know, and goes on when its user asks for records. Nobody
asks before the first assignment.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from aiokafka.errors import KafkaError
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest

from pipeline.errors import HaltError
from pipeline.transport.adapter.group_answers import (
    NEW_PROTOCOL,
    OTHER_TOPICS,
    Answer,
    Course,
    GroupRefusalError,
    answer_in,
    answer_to,
)
from pipeline.transport.adapter.static_member import keeps_lead, misfit, naming_instance, note_assignment, take_up_lead
from pipeline.transport.broker import BrokerTrouble, Log

_HEARTBEAT_PAUSE_SECONDS = 1.0  # a longer one would cost the membership if the session timeout is short


class Joining:
    """Sees each answer of the group coordinator before aiokafka does.

    Args:
        coordinator: aiokafka's; it uses this object from now on.
        log: of the consumer.
        halt: called in the coordinator's thread with what only a person can mend.
        pause_seconds: time between two attempts.
        unclear_seconds: time for which an unforeseen failure is tried again.
        silent_seconds: time for which a member may be without an answer; heartbeats ask far more often.
    """

    def __init__(
        self,
        coordinator: Any,
        log: Log,
        halt: Callable[[HaltError], None],
        *,
        pause_seconds: float,
        unclear_seconds: float,
        silent_seconds: float,
    ) -> None:
        self._refusal: str | None = None
        self._refused = 0
        self._silent_seconds = silent_seconds
        self._answered_at = monotonic()
        self._joins = False
        self._coordinator = coordinator
        self._log = log
        self._halt = halt
        self._pause_seconds = pause_seconds
        self._unclear_seconds = unclear_seconds
        self._unclear_since: float | None = None
        self._instance_id: str | None = coordinator._group_instance_id  # noqa: SLF001 (aiokafka offers no other way in)
        self._keeps_lead = False
        self._asked_for: set[str] = set()
        self._ask: Callable[[Any], Awaitable[Any]] = coordinator._send_req  # noqa: SLF001 (as above)
        coordinator._send_req = self._send  # noqa: SLF001 (as above)
        coordinator._push_error_to_user = self._pushed  # noqa: SLF001 (as above)
        coordinator._coordination_task.add_done_callback(self._ended)  # noqa: SLF001 (as above)

    @property
    def trouble(self) -> BrokerTrouble | None:
        """Reason why this worker isn't in its group, or may not be; None if nothing is known against it."""
        silence = monotonic() - self._answered_at
        if self._refusal:
            return BrokerTrouble(self._refusal, attempts=self._refused)
        if self._joins or silence < self._silent_seconds:  # a join may wait for others
            return None
        return BrokerTrouble(f"group {self._coordinator.group_id}: no answer from Kafka", silence)

    async def _send(self, request: Any) -> Any:
        """Make a request; deal with the errors that aiokafka doesn't know, and raise them as one that it does.

        Raises:
            GroupRefusalError: aiokafka takes it for a lost connection, and tries again.
        """
        joins = isinstance(request, JoinGroupRequest | SyncGroupRequest)
        self._joins = self._joins or joins
        try:
            response = await self._ask(naming_instance(request, self._instance_id))
        finally:
            self._joins = self._joins and not joins  # a commit may be answered while a join waits
        self._answered_at = monotonic()
        if (answer := answer_to(request, response)) is None:
            self._note(request, response)
            if self._instance_id and isinstance(request, SyncGroupRequest) and response.error_code == 0:
                await self._check_topics(response)
            return response
        if isinstance(request, OffsetCommitRequest | OffsetFetchRequest):
            raise GroupRefusalError(answer)  # to the caller
        if answer is NEW_PROTOCOL:
            await self._leave()  # so that the others have the partitions meanwhile
        elif answer.course is Course.JOIN_ANEW:
            self._coordinator.reset_generation()
        heartbeat = isinstance(request, HeartbeatRequest)
        await self._deal_with(answer, _HEARTBEAT_PAUSE_SECONDS if heartbeat else self._pause_seconds)
        raise GroupRefusalError(answer)

    def _note(self, request: Any, response: Any) -> None:
        """Note how far joining has come."""
        if isinstance(request, JoinGroupRequest) and response.error_code == 0:
            self._keeps_lead = keeps_lead(response, self._instance_id)
        elif isinstance(request, SyncGroupRequest) and response.error_code == 0:
            self._let_in()
            if self._keeps_lead:
                take_up_lead(self._coordinator, response)
        elif isinstance(request, HeartbeatRequest) and response.error_code == 0:
            self._let_in()  # no SyncGroup follows a heartbeat that has failed once

    def _let_in(self) -> None:
        self._refusal = self._unclear_since = None
        self._refused = 0

    async def _check_topics(self, synced: Any) -> None:
        """Have a new assignment made if this one is of a release with other topics.

        Raises:
            GroupRefusalError: aiokafka doesn't take the assignment, and joins again.
        """
        dropped, missing = misfit(synced, self._coordinator._subscription.topics)  # noqa: SLF001 (as above)
        if dropped | missing <= self._asked_for:
            if not dropped:
                return  # nobody can have a topic that is gone
            await self._pause(self._pause_seconds)
        self._asked_for |= dropped | missing
        note_assignment(self._coordinator, synced)
        names = ", ".join(sorted(dropped | missing))
        self._log.info("The group's assignment is of a release with other topics, a new one is requested: %s", names)
        raise GroupRefusalError(OTHER_TOPICS)

    async def _pushed(self, error: BaseException) -> None:
        """Deal with an error that aiokafka would keep for its user; then aiokafka joins again."""
        if isinstance(error, HaltError):  # of a task of aiokafka's that reads commits
            self._halt(error)
            await self._pause(self._pause_seconds)
        else:
            await self._deal_with(answer_in(error), self._pause_seconds)
        self._coordinator.request_rejoin()  # a task of aiokafka's that has failed begins anew with the membership

    async def _deal_with(self, answer: Answer, pause_seconds: float) -> None:
        """Halt, or say that it will be tried again; return after the pause, or when the consumer stops."""
        where = f"group {self._coordinator.group_id}"
        reason = f"{answer.name}; {answer.advice}" if answer.advice else answer.name
        if answer.course is Course.HALT:
            self._halt(HaltError(f"{where}: Kafka refuses this worker: {reason}"))
        elif answer.course is Course.UNCLEAR and self._too_long():
            self._halt(HaltError(f"{where}: no membership for {self._unclear_seconds:.0f} s: {reason}"))
        elif answer.course is not Course.JOIN_ANEW:
            self._refusal = f"{where} doesn't let this worker in: {reason}"
            self._refused += 1
        else:
            return
        await self._pause(pause_seconds)

    async def _pause(self, seconds: float) -> None:
        await asyncio.wait([self._coordinator._closing], timeout=seconds)  # noqa: SLF001 (as above)

    def _too_long(self) -> bool:
        now = monotonic()
        self._unclear_since = self._unclear_since or now
        return now - self._unclear_since >= self._unclear_seconds

    async def _leave(self) -> None:
        coordinator = self._coordinator
        try:
            await self._ask(LeaveGroupRequest(coordinator.group_id, coordinator.member_id))
        except KafkaError as error:
            self._log.info("Can't leave the group: %r", error)  # it forgets this worker after the session timeout
        coordinator.reset_generation()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Halt if aiokafka has stopped coordinating: it wouldn't join any more, nor tell anybody."""
        if not task.cancelled() and (error := task.exception()):
            reason = error.__cause__ or error
            self._halt(HaltError(f"aiokafka has left its group for good: {reason!r}; start the worker again"))
