"""Storage of closed hours: what is joined, in what order, and under which locks."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from support.joint_inserts import World

from pipeline.retry import Held
from pipeline.rollup.derivation import Derivation
from pipeline.rollup.fold import HOUR_MS
from pipeline.rollup.joint_insert import FirstInsert, HeldTogether, renew_together
from pipeline.rollup.partition import PartitionWindows
from pipeline.transport.commit_metadata import Closing


def _held(number: int, *, live: bool = True, committed_at: float = 0.0) -> Any:
    return SimpleNamespace(topic="t", partition=number, live=live, committed_at=committed_at)


def test_partitions_that_are_held_together_are_held_by_the_weakest() -> None:
    """One that is lost is a loss of all, and the oldest commit counts for the lease."""
    both = HeldTogether([_held(0, committed_at=5.0), _held(3, committed_at=4.0)])
    assert (both.live, both.committed_at, both.partition, both.partitions) == (True, 4.0, 0, "0,3")
    assert not HeldTogether([_held(0), _held(1, live=False)]).live


def test_each_of_them_is_renewed() -> None:
    """The lease of a joint insert lasts as long as the shortest one."""
    renewed = list[int]()

    async def renew(held: Held) -> bool:
        renewed.append(held.partition)
        return held.live

    async def scenario() -> None:
        together = renew_together(renew)
        assert await together(HeldTogether([_held(0), _held(1), _held(2)]))
        assert await together(_held(3))
        assert not await together(HeldTogether([_held(4, live=False), _held(5)]))

    asyncio.run(scenario())
    assert renewed == [0, 1, 2, 3, 4]


class _Sink:
    """Fails as often as it is told, after the rows were asked for or before."""

    def __init__(self, *failures: str) -> None:
        self.failures = list(failures)
        self.inserts = list[str]()

    def insert(self, _: str, columns: dict[str, Any], token: str, check: Callable[[], None]) -> None:
        failure = self.failures.pop(0) if self.failures else ""
        if failure == "before":
            raise OSError(failure)
        check()
        self.inserts.append(f"{token} {columns['hour'].tolist()}")
        if failure:
            raise OSError(failure)


@pytest.mark.parametrize(
    ("failures", "seconds", "inserts", "known"),
    [
        pytest.param([], 0, 1, True, id="answered"),
        pytest.param(["before", "before"], 99, 1, True, id="nothing-sent"),
        pytest.param(["after"], 1, 2, False, id="repeated"),
        pytest.param(["after"], 6, 1, False, id="too-late"),
    ],
)
def test_a_joint_insert_is_repeated_for_a_while(
    failures: list[str], seconds: int, inserts: int, *, known: bool
) -> None:
    """Under the same token; once rows may have been sent, each hour is looked for all the same."""
    sink, now = _Sink(*failures), [0.0]
    insert = FirstInsert(
        cast("Any", sink),
        {"hour": np.array([7, 8])},
        "joint/a",
        check=lambda: None,
        repeat_seconds=5,
        clock=lambda: now[0],
    )
    for _ in failures:
        with pytest.raises(OSError, match=r"before|after"):
            insert.attempt()
    now[0] += seconds
    assert insert.attempt() is known
    assert sink.inserts == ["joint/a [7, 8]"] * inserts


def test_an_hour_is_known_before_a_closing_closes_it() -> None:
    """In between it would pass for an hour that nobody can have stored, and a fold may take long."""
    seen = list[bool]()

    class Windows(PartitionWindows):
        def raise_watermark(self, to_ms: int) -> None:
            seen.append(derivation.may_be_stored(to_ms // HOUR_MS - 1))
            super().raise_watermark(to_ms)

    derivation = Derivation(Windows(0), 5, [Closing(7, 100)])
    derivation.pass_to(7)
    assert seen == [True]


def test_hours_on_a_replica_are_not_joined() -> None:
    """It may not show the rows of a joint insert yet."""
    world = World()
    cast("Any", world.table).is_replicated = lambda _: True
    asyncio.run(_steps(world, "close 0", "close 1", "store 0"))
    assert {token.partition("/")[0] for token in world.table.tokens} == {"id"}


def test_what_is_new_is_decided_under_the_lock_of_the_partition() -> None:
    """While records are added, an hour may be closed and not yet known to have been closed before."""

    async def scenario() -> None:
        world = World()
        partition = world.workers[0].partitions[0]
        async with partition.lock:
            await _steps(world, "close 0", "close 1", "store 0")
            assert world.table.tokens == []
            partition.derivation.know_before(1)
        await world.workers[0].thaw()
        assert [token.partition("/")[0] for token in world.table.tokens] == ["id"], "of partition 1"
        await _steps(world, "settle 0")
        assert world.table.rows == {(0, 0): 1, (1, 0): 1}

    asyncio.run(scenario())


def test_hours_that_close_meanwhile_are_for_the_next_time() -> None:
    """A log that goes on can't keep one call going, and others have their turn."""

    async def scenario() -> None:
        world = World()
        insert = world.table.insert

        def slow(*args: Any) -> None:
            world.closed[0] += 1
            insert(*args)

        cast("Any", world.table).insert = slow
        await _steps(world, "close 0", "close 1", "store 0")
        assert len(world.table.tokens) == 1

    asyncio.run(scenario())


def test_a_joint_insert_locks_its_own_partitions_alone() -> None:
    """The others may be settled meanwhile."""

    async def scenario() -> None:
        world = World()
        await _steps(world, "close 0", "close 1", "store 8")  # frozen at the first request
        assert [partition.storing.locked() for partition in world.workers[0].partitions] == [True, True, False]
        await world.workers[0].thaw()
        assert not any(partition.storing.locked() for partition in world.workers[0].partitions)

    asyncio.run(scenario())


async def _steps(world: World, *steps: str) -> None:
    for step in steps:
        action, number = step.split()
        await world.step(action, int(number), [])
