"""Failures of a step that are tried again, and the time for it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from pipeline.clickhouse.client import describe, is_unclear, kind_of
from pipeline.config import WorkerSettings
from pipeline.errors import HaltError, UnavailableError, UnclearError
from pipeline.retry import Held, LostPartitionError, NotYetError, Retry
from pipeline.troubles import Troubles

_SETTINGS = WorkerSettings(retry_backoff_seconds=0.001, retry_backoff_max_seconds=0.001)


@dataclass(frozen=True)
class _Partition:
    topic: str = "t"
    partition: int = 0
    live: bool = True
    committed_at: float = 0.0


def _run(failures: list[Exception], *, unclear_seconds: float, troubles: Troubles | None = None) -> int:
    """Run a step that fails in this way, and then succeeds; return the number of its attempts.

    Args:
        failures: in their order.
        unclear_seconds: limit of unclear ones.
        troubles: told of the failures.
    """
    attempts = 0

    async def renew(_: Held) -> bool:
        return True

    def step() -> int:
        nonlocal attempts
        attempts += 1
        if attempts <= len(failures):
            raise failures[attempts - 1]
        return attempts

    retry = Retry(
        "name",
        renew,
        _SETTINGS,
        kind_of=kind_of,
        describe=describe,
        troubles=troubles,
        is_unclear=is_unclear,
        unclear_seconds=unclear_seconds,
    )
    with ThreadPoolExecutor(1) as pool:
        return asyncio.run(retry.run(_Partition(), step, pool))


def test_failures_of_a_step_are_one_trouble() -> None:
    """The log has a line for its beginning and one for its end, however often the step is tried."""
    troubles = Troubles()
    with capture_logs() as lines:
        assert _run([UnavailableError("down")] * 3, unclear_seconds=60, troubles=troubles) == 4
    assert [(line["event"], line["part"], line["cause"]) for line in lines] == [
        ("trouble begins", "name", "down"),
        ("trouble is over", "name", "down"),
    ]
    assert lines[-1]["attempts"] == 3
    assert troubles.lines == []


def test_an_unclear_failure_that_passes_does_no_harm() -> None:
    """A step succeeds after some unclear failures, also after others."""
    assert _run([UnclearError("a page"), UnavailableError("down"), UnclearError("a page")], unclear_seconds=60) == 4


def test_an_unclear_failure_halts_after_a_while() -> None:
    """A step that goes on failing for an unclear reason isn't tried for ever."""
    with pytest.raises(UnclearError):
        _run([UnclearError("a page")] * 1_000_000, unclear_seconds=0.05)


def test_only_unclear_failures_count_for_the_while() -> None:
    """However long a server was away, an unclear failure after that is tried again."""
    assert _run([UnavailableError("down")] * 100 + [UnclearError("a page")], unclear_seconds=0.02) == 102


def test_a_failure_that_needs_a_person_halts_at_once() -> None:
    """No second attempt is made."""
    with pytest.raises(HaltError):
        _run([HaltError("rights")], unclear_seconds=60)


def test_a_step_that_is_not_due_waits_and_is_no_failure() -> None:
    """It is no attempt that is logged or counted, and has no thread while it waits."""
    with capture_logs() as logged:
        assert _run([NotYetError(0.001), NotYetError(0.001)], unclear_seconds=0) == 3
    assert logged == []


def test_the_loss_of_a_partition_ends_a_wait() -> None:
    """A stop and a rebalance don't wait for a step that isn't due for an hour."""

    @dataclass(eq=False)
    class Partition:
        topic: str = "t"
        partition: int = 0
        live: bool = True
        committed_at: float = 0.0

    async def renew(_: Held) -> bool:
        return True

    def step() -> None:
        raise NotYetError(3600)

    async def scenario() -> None:
        retry, partition = Retry("name", renew, _SETTINGS, kind_of=kind_of, describe=describe), Partition()
        with ThreadPoolExecutor(1) as pool:
            running = asyncio.create_task(retry.run(partition, step, pool))
            await asyncio.sleep(0.05)
            partition.live = False
            with pytest.raises(LostPartitionError):
                await asyncio.wait_for(running, 10)

    asyncio.run(scenario())
