"""One step of the way of a partition's data, made until it succeeds, for as long as the partition is ours.

What a failed step leads to is decided by its kind (`pipeline.errors.FailureKind`): what is worth another try is tried
again, for as long as it takes; any other failure is the caller's.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import TypeVar

import structlog

from pipeline import metrics
from pipeline.backoff import pauses
from pipeline.clickhouse.client import describe, kind_of
from pipeline.config import WorkerSettings
from pipeline.errors import FailureKind
from pipeline.transport.batches import MicroBatch, PartitionBatches
from pipeline.transport.commit_metadata import lease_clock

T = TypeVar("T")


Held = MicroBatch | PartitionBatches
"""What is ours as long as it is `live`, by a commit that the broker took when it was `committed_at`."""
Renew = Callable[[Held], Awaitable[bool]]
"""Commits again; False when it isn't ours any more."""


class LostPartitionError(Exception):
    """The partition has gone to another worker, and what was to be done for it with it."""


class _LeaseOverError(Exception):
    """What we hold was recorded too long ago."""


class Attempts:
    """Makes the steps of one family, or of the stream job.

    Args:
        name: whose steps these are, for metrics and log.
        renew: records again what is held; False when it isn't ours any more.
        settings: lease, and pauses between attempts.
    """

    def __init__(self, name: str, renew: Renew, settings: WorkerSettings) -> None:
        self._name = name
        self._renew = renew
        self._lease_seconds = settings.lease_seconds
        self._backoff = (settings.retry_backoff_seconds, settings.retry_backoff_max_seconds)
        self._log = structlog.get_logger("chimera.attempts").bind(family=name)
        self._failing: set[Held] = set()

    @property
    def retrying(self) -> bool:
        """Whether anything waits for something that has failed."""
        return bool(self._failing)

    def repeats(self, held: Held) -> bool:
        """Whether the step that is being made for this has failed before, and may have been done all the same."""
        return held in self._failing

    def check_lease(self, held: Held) -> None:
        """Refuse to go on when this process may have slept for so long that the partition has another owner.

        Called within a step, which is then made again if the partition is still ours.
        """
        if lease_clock() - held.committed_at > self._lease_seconds:
            raise _LeaseOverError

    async def make(self, held: Held, step: Callable[[], T], pool: Executor) -> T:
        """Do it in a thread, again and again while that may help; never for what isn't ours any more.

        Raises:
            LostPartitionError: it isn't.
            Exception: what the step raised, when another try wouldn't help.
        """
        try:
            for attempt, pause in enumerate(pauses(*self._backoff), start=1):
                if not held.live:
                    raise LostPartitionError
                try:
                    return await asyncio.get_running_loop().run_in_executor(pool, step)
                except _LeaseOverError:
                    if not await self._renew(held):
                        raise LostPartitionError from None
                    continue
                except Exception as error:
                    if kind_of(error) is not FailureKind.RETRY:
                        raise
                    self._say_failed(held, error, attempt, pause)
                await asyncio.sleep(pause)
            raise AssertionError("pauses have no end")
        finally:
            self._failing.discard(held)
            metrics.RETRYING.labels(self._name).set(len(self._failing))

    def _say_failed(self, held: Held, error: Exception, attempt: int, pause: float) -> None:
        self._failing.add(held)
        metrics.RETRIES.labels(self._name).inc()
        metrics.RETRYING.labels(self._name).set(len(self._failing))
        self._log.warning(
            "failed, trying again",
            batch=repr(held),
            error=describe(error),
            attempt=attempt,
            pause_seconds=round(pause, 2),
        )
