"""A value that one task owns and others read, whoever is cancelled."""

import asyncio

import pytest

from pipeline.errors import UnavailableError
from pipeline.retry import LostPartitionError
from pipeline.transport.shared import Shared


async def _reading(shared: Shared[int]) -> asyncio.Task[int]:
    """Start a reader, and return when it waits."""
    reader = asyncio.create_task(shared.get())
    await asyncio.sleep(0)
    return reader


async def _cancel(task: asyncio.Task[int]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_cancelled_reader_affects_nobody() -> None:
    """The owner sets the value after a reader was cancelled, and another reader gets it."""

    async def scenario() -> None:
        shared = Shared[int]()
        cancelled, other = await _reading(shared), await _reading(shared)
        await _cancel(cancelled)
        shared.set(7)
        assert await other == 7

    asyncio.run(scenario())


def test_a_late_reader_gets_the_value() -> None:
    """A reader may come after the owner is done, and after another reader."""

    async def scenario() -> None:
        shared = Shared[int]()
        shared.set(7)
        assert [await shared.get(), await shared.get()] == [7, 7]

    asyncio.run(scenario())


def test_readers_get_the_failure_of_the_owner() -> None:
    """Early and late readers raise it, and so does the owner."""

    async def work() -> int:
        await asyncio.sleep(0)
        raise UnavailableError("no answer")

    async def scenario() -> None:
        shared = Shared[int]()
        early = await _reading(shared)
        with pytest.raises(UnavailableError):
            await shared.own(work())
        for reader in (early, shared.get()):
            with pytest.raises(UnavailableError):
                await reader

    asyncio.run(scenario())


def test_readers_learn_that_the_partition_is_lost() -> None:
    """An abandoned value is lost for early and late readers; the owner may still finish."""

    async def scenario() -> None:
        shared = Shared[int]()
        early = await _reading(shared)
        shared.abandon()
        for reader in (early, shared.get()):
            with pytest.raises(LostPartitionError):
                await reader
        shared.set(7)
        with pytest.raises(LostPartitionError):
            await shared.get()

    asyncio.run(scenario())


def test_readers_of_a_cancelled_owner_stop_waiting() -> None:
    """A stopping worker cancels the owner; its readers don't wait for ever."""

    async def scenario() -> None:
        shared = Shared[int]()
        owner = asyncio.create_task(shared.own(asyncio.sleep(60, 7)))
        early = await _reading(shared)
        await _cancel(owner)
        with pytest.raises(LostPartitionError):
            await early

    asyncio.run(scenario())


def test_a_value_is_set_once() -> None:
    """A second value or failure is a bug; to abandon a value that is set changes nothing."""

    async def scenario() -> None:
        shared = Shared[int]()
        assert await shared.own(asyncio.sleep(0, 7)) == 7
        shared.abandon()
        assert await shared.get() == 7
        with pytest.raises(RuntimeError, match="set already"):
            shared.set(8)
        with pytest.raises(RuntimeError, match="set already"):
            shared.fail(UnavailableError("no answer"))

    asyncio.run(scenario())
