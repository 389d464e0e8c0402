"""Failures of a step that are tried again, and the time for it."""

import asyncio
import io
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import structlog
from structlog.testing import capture_logs

from pipeline.clickhouse.client import describe, is_unclear, kind_of
from pipeline.config import LogSettings, WorkerSettings
from pipeline.errors import HaltError, UnavailableError, UnclearError
from pipeline.logs import logging_config
from pipeline.retry import Held, LostPartitionError, NotYetError, Retry

_SETTINGS = WorkerSettings(retry_backoff_seconds=0.001, retry_backoff_max_seconds=0.001)


@dataclass(frozen=True)
class _Partition:
    topic: str = "t"
    partition: int = 0
    live: bool = True
    committed_at: float = 0.0


def _run(failures: list[Exception], *, unclear_seconds: float, begin: Callable[[], object] = lambda: None) -> int:
    """Run a step that fails in this way, and then succeeds; return the number of its attempts.

    Args:
        failures: in their order.
        unclear_seconds: limit of unclear ones.
        begin: called before the step, after its runner was made.
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
        is_unclear=is_unclear,
        unclear_seconds=unclear_seconds,
    )
    begin()
    with ThreadPoolExecutor(1) as pool:
        return asyncio.run(retry.run(_Partition(), step, pool))


@contextmanager
def _json_log() -> Iterator[list[str]]:
    """Lines of the log of retries, as the worker writes them with JSON; other logs stay as they are."""
    before = structlog.get_config() if structlog.is_configured() else {}
    lines, handler, log = io.StringIO(), logging.StreamHandler(), logging.getLogger("chimera.retry")
    formatter = logging_config(LogSettings(format="json"))["formatters"]["chimera"]
    handler.setStream(lines)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(**{k: v for k, v in formatter.items() if k != "()"}))
    structlog.reset_defaults()
    log.addHandler(handler)
    found: list[str] = []
    try:
        yield found
    finally:
        log.removeHandler(handler)
        structlog.reset_defaults()
        if before:
            structlog.configure(**before)
        found += lines.getvalue().splitlines()


def test_a_retry_is_one_log_line_with_fields() -> None:
    """Topic and partition are fields of their own; so they are if the log is configured after its parts were made."""
    with _json_log() as lines:
        assert (
            _run(
                [UnavailableError("down")],
                unclear_seconds=60,
                begin=lambda: logging_config(LogSettings(format="json")),
            )
            == 2
        )
    (text,) = lines
    line = json.loads(text)
    assert line.keys() == {
        *("event", "level", "logger", "timestamp", "family"),
        *("topic", "partition", "error", "attempt", "pause_seconds"),
    }
    assert (line["family"], line["topic"], line["partition"], line["error"]) == ("name", "t", 0, "down")


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
