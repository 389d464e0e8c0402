"""Places for micro-batches: a limit for all families, which take turns."""

import asyncio

from pipeline.worker.places import Places


def test_families_take_turns() -> None:
    """A family with many micro-batches doesn't hold up another, and keeps the order of its own."""
    order: list[str] = []

    async def scenario() -> None:
        places = Places(1)

        async def process(family: str, number: int) -> None:
            async with places.take(family):
                order.append(f"{family}{number}")
                await asyncio.sleep(0)

        waiting = [("a", number) for number in range(4)] + [("b", number) for number in range(2)]
        await asyncio.gather(*(process(*each) for each in waiting))

    asyncio.run(scenario())
    assert order == ["a0", "a1", "b0", "a2", "b1", "a3"]


def test_a_lent_place_is_used_and_waited_for() -> None:
    """Another micro-batch runs in a lent place; the lender goes on when a place is free."""
    order: list[str] = []

    async def scenario() -> None:
        places = Places(1)

        async def lender() -> None:
            async with places.take("a") as place:
                async with place.lend():
                    order.append("lent")
                    await asyncio.sleep(0.01)
                order.append("back")

        async def borrower() -> None:
            async with places.take("b"):
                order.append("borrowed")
                await asyncio.sleep(0.05)
                order.append("done")

        await asyncio.gather(lender(), borrower())

    asyncio.run(scenario())
    assert order == ["lent", "borrowed", "done", "back"]


def test_a_lender_that_is_cancelled_gives_no_place_back_that_it_lacks() -> None:
    """While it waits for a free place, it has none; the number of places stays the same."""
    most = 0

    async def scenario() -> None:
        places = Places(1)
        at_once = 0
        begun, done = asyncio.Event(), asyncio.Event()

        async def lender() -> None:
            async with places.take("a") as place, place.lend():
                await begun.wait()

        async def process(family: str) -> None:
            nonlocal at_once, most
            async with places.take(family):
                at_once += 1
                most = max(most, at_once)
                begun.set()
                await done.wait()
                at_once -= 1

        lending = asyncio.create_task(lender())
        first = asyncio.create_task(process("b"))
        await asyncio.sleep(0.01)  # the other micro-batch has the place, and the lender waits
        lending.cancel()
        await asyncio.wait([lending])
        assert lending.cancelled()
        second = asyncio.create_task(process("c"))
        await asyncio.sleep(0.01)
        done.set()
        await asyncio.gather(first, second)

    asyncio.run(scenario())
    assert most == 1
