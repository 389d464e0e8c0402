"""Joint inserts of hours: in any schedule of owners, failures and late arrivals, each row is stored once."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.joint_inserts import ANSWERS, PARTITIONS, World

Step = tuple[str, int, list[str]]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["close", "close", "store", "store", "settle", "commit", "arrive", "reassign", "replay"]),
        st.integers(0, 31),
        st.lists(st.sampled_from(ANSWERS), max_size=4),
    ),
    max_size=40,
)

# Hours of all partitions close, and their insert is under way when the partitions move.
UNDER_WAY: list[Step] = [("close", number, []) for number in PARTITIONS] + [("store", 2, ["lost"]), ("reassign", 5, [])]
ARRIVES_AFTER: list[Step] = [*UNDER_WAY, ("settle", 0, []), ("settle", 1, []), ("arrive", 0, [])]
# The new owners settle before they have replayed the records that closed these hours, and again after that.
_SETTLE_AND_REPLAY: list[Step] = [(action, owner, []) for action in ("settle", "replay") for owner in (0, 1)]
REPLAYED: list[Step] = [*UNDER_WAY[:-1], ("reassign", 16 + 5, []), *_SETTLE_AND_REPLAY * 3]
ARRIVES_BETWEEN: list[Step] = [*UNDER_WAY, ("settle", 0, []), ("arrive", 0, []), ("settle", 1, [])]


def _check(world: World, steps: list[Step]) -> None:
    world.reassign(7)
    for step in steps:
        world.step(*step)
    world.finish()


@given(steps=STEPS)
@example(steps=ARRIVES_AFTER)
@example(steps=ARRIVES_BETWEEN)
@example(steps=REPLAYED)
def test_in_any_schedule_each_row_is_stored_once(steps: list[Step]) -> None:
    """A late insert has rows of partitions that other workers own by now, and of several days."""
    _check(World(), steps)


def test_the_property_notices_a_name_that_is_not_committed() -> None:
    """The next owner can't know the token then, and the late insert stores the rows once more."""
    with pytest.raises(AssertionError, match="stored twice"):
        _check(World(commits_names=False), ARRIVES_AFTER)


def test_closed_hours_of_all_partitions_are_one_insert() -> None:
    """An hour alone has the token of its own; a block that is full makes a second insert."""
    world = World()
    world.reassign(7)
    for inserts, hours in ((1, 1), (2, 3), (4, 6)):
        for number in range(hours):
            world.step("close", number % len(PARTITIONS), [])
        world.step("store", 0, [])
        assert world.server.inserts == inserts
    world.finish()
    assert world.server.inserts == inserts
