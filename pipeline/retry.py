"""Retries: run a step of a partition's work until it succeeds, while this worker owns the partition.

The kind of a failure (`pipeline.errors.FailureKind`) decides what follows. A step that failed with kind RETRY runs
again, without limit. Every other failure goes to the caller.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator
from concurrent.futures import Executor
from itertools import count
from typing import Protocol, TypeVar

from pipeline import metrics
from pipeline.config import WorkerSettings
from pipeline.errors import FailureKind
from pipeline.troubles import Troubles

_MOST_DOUBLINGS = 30
_LONGEST_WAIT_SECONDS = 0.25  # for a step that isn't due; the loss of the partition is noticed after that
UNCLEAR_SECONDS = 60.0
"""Time for which a step is tried again whose failure may pass or may need a person."""
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

T = TypeVar("T")


class Held(Hashable, Protocol):
    """A partition that this worker owns, or a micro-batch of it."""

    @property
    def topic(self) -> str:
        """Topic of the partition."""
        ...

    @property
    def partition(self) -> int:
        """Number of the partition."""
        ...

    @property
    def live(self) -> bool:
        """True while this worker owns the partition."""
        ...

    @property
    def committed_at(self) -> float:
        """Time of the last commit that the broker accepted, by `lease_clock`."""
        ...


Renew = Callable[[Held], Awaitable[bool]]
"""Commits the state of a partition again; gives False if another worker owns it by now."""


class LostPartitionError(Exception):
    """Another worker owns the partition, and does the rest of its work."""


class NotYetError(Exception):
    """A step isn't due yet: it has to wait, without a thread.

    Args:
        seconds: time after which it may be due.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class _LeaseOverError(Exception):
    """The last commit of the partition is too old."""


def coordinates(held: Held) -> dict[str, str | int]:
    """Return topic and partition as fields of a log line.

    A micro-batch has its first and last offset too, and partitions that are held together their numbers.
    """
    where: dict[str, str | int] = {"topic": held.topic, "partition": held.partition}
    offsets = {f"{name}_offset": getattr(held, name, None) for name in ("first", "last")}
    if isinstance(together := getattr(held, "partitions", None), str):
        where["partitions"] = together
    return where | {name: offset for name, offset in offsets.items() if isinstance(offset, int)}


def lease_clock() -> float:
    """Seconds that also pass while the machine is suspended, unlike those of `time.monotonic`; leases use them."""
    return time.clock_gettime(_CLOCK)


def pauses(first: float, longest: float) -> Iterator[float]:
    """Yield pauses between attempts, without end: they double up to the longest.

    Each is shortened at random, by half at most, so that workers don't retry all at once.

    Args:
        first: the first pause, in seconds, before it is shortened.
        longest: upper limit of a pause, in seconds.
    """
    for doublings in count():
        pause = min(longest, first * 2 ** min(doublings, _MOST_DOUBLINGS))
        yield pause * random.uniform(0.5, 1)  # noqa: S311 (no secret)


class Retry:
    """Runs the steps of one family, or of the rollup.

    Args:
        name: family or table, for metrics and troubles.
        renew: commits the state of a partition again.
        settings: length of the lease, and pauses between attempts.
        kind_of: kind of a failure; None for an unforeseen one, which goes to the caller.
        describe: a failure on one line, with the server's address.
        label: name of a failure's cause, of a small set, for metrics.
        troubles: told of each failed attempt, and of the end of the failures.
        is_unclear: True for a failure that isn't of kind RETRY, but may pass all the same.
        unclear_seconds: time for which a step is tried again after unclear failures.
    """

    def __init__(
        self,
        name: str,
        renew: Renew,
        settings: WorkerSettings,
        *,
        kind_of: Callable[[BaseException], FailureKind | None],
        describe: Callable[[BaseException], str],
        label: Callable[[BaseException], str] = lambda error: type(error).__name__,
        troubles: Troubles | None = None,
        is_unclear: Callable[[BaseException], bool] = lambda _: False,
        unclear_seconds: float = UNCLEAR_SECONDS,
    ) -> None:
        self._name = name
        self._renew = renew
        self._lease_seconds = settings.lease_seconds
        self._backoff = (settings.retry_backoff_seconds, settings.retry_backoff_max_seconds)
        self._kind_of = kind_of
        self._describe = describe
        self._label = label
        self._troubles = troubles or Troubles()
        self._is_unclear = is_unclear
        self._unclear_seconds = unclear_seconds
        self._failing: set[Held] = set()

    def check_lease(self, held: Held) -> None:
        """Stop a step if the last commit is older than the lease.

        The process may have been suspended, and another worker may own the partition by now. A step calls this before
        it writes. `run` then renews the lease and runs the step again, or raises LostPartitionError.
        """
        if lease_clock() - held.committed_at > self._lease_seconds:
            raise _LeaseOverError

    async def run(self, held: Held, step: Callable[[], T], pool: Executor) -> T:
        """Run a step in a thread until it succeeds, while this worker owns the partition.

        Args:
            held: partition or micro-batch of the step.
            step: may run several times; after NotYetError it runs again when it is due.
            pool: threads to run it in.

        Raises:
            LostPartitionError: another worker owns the partition.
            Exception: the failure of the step, if its kind isn't RETRY; an unclear one after a while.
        """
        deadline = math.inf
        try:
            for attempt, pause in enumerate(pauses(*self._backoff), start=1):
                try:
                    return await self._run_when_due(held, step, pool)
                except _LeaseOverError:
                    if not await self._renew(held):
                        raise LostPartitionError from None
                    continue
                except LostPartitionError:
                    raise
                except Exception as error:
                    if self._kind_of(error) is FailureKind.RETRY:
                        deadline = math.inf  # a server that goes down or comes up may answer unclearly
                    else:
                        deadline = min(deadline, time.monotonic() + self._unclear_seconds)
                        if not self._is_unclear(error) or time.monotonic() >= deadline:
                            raise
                    self._note_failure(held, error, attempt)
                await asyncio.sleep(pause)
            raise AssertionError("pauses have no end")
        finally:
            self._failing.discard(held)
            metrics.RETRYING.labels(self._name).set(len(self._failing))
            self._troubles.end(self._name, step=held)

    async def _run_when_due(self, held: Held, step: Callable[[], T], pool: Executor) -> T:
        while True:
            if not held.live:
                raise LostPartitionError
            try:
                return await asyncio.get_running_loop().run_in_executor(pool, step)
            except NotYetError as error:
                await asyncio.sleep(min(error.seconds, _LONGEST_WAIT_SECONDS))

    def _note_failure(self, held: Held, error: Exception, attempt: int) -> None:
        self._failing.add(held)
        metrics.RETRIES.labels(self._name, self._label(error)).inc()
        metrics.RETRYING.labels(self._name).set(len(self._failing))
        self._troubles.report(self._name, self._describe(error), step=held, attempts=attempt)
