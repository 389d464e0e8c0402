"""Exactly once over takeovers: in any schedule of owners, each record has one row."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.takeovers import World

Step = tuple[str, int, int]
ACTIONS = [
    "produce",
    "fetch",
    "fetch",
    "cut",
    "cut",
    "record",
    "record",
    "insert",
    "insert",
    "ack",
    "reassign",
    "retain",
    "close",
]
STEPS = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5), st.integers(0, 100)), max_size=80)

# Seven records in a micro-batch, inserted; the next worker cuts by four.
TAKEOVER: list[Step] = [
    ("reassign", 1, 4),
    ("produce", 0, 4),
    ("produce", 0, 9),
    ("fetch", 0, 7),
    ("cut", 0, 1),
    ("record", 0, 0),
    ("insert", 0, 0),
    ("reassign", 0, 3),
    ("fetch", 0, 8),
    ("cut", 0, 1),
    ("record", 0, 0),
    ("insert", 0, 0),
]


def _check(world: World, steps: list[Step]) -> None:
    for step in steps:
        world.step(*step)
        assert all(world.rows[offset] or offset < world.beginning for offset in world.log if offset < world.commit[0])
    world.settle()
    world.check()


@given(steps=STEPS)
@example(steps=TAKEOVER)
def test_whatever_the_schedule_each_record_is_stored_once(steps: list[Step]) -> None:
    """Any order of fetching, cutting, recording, inserting, acknowledging, by any owner, former ones as well."""
    _check(World(), steps)


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(World(ends_are_read=False), id="recorded-ends-ignored"),
        pytest.param(World(tokens_repeat=False), id="random-tokens"),
    ],
)
def test_the_property_notices_what_is_stored_twice(world: World) -> None:
    """The check fails when a takeover doesn't cut the same ranges, and when it doesn't give them the same tokens."""
    with pytest.raises(AssertionError, match="stored twice"):
        _check(world, TAKEOVER)


def test_the_property_notices_what_is_delivered_before_it_is_recorded() -> None:
    """The check fails when the next owner can't know what was in flight."""
    steps = [step for step in TAKEOVER if step[0] != "record"]
    with pytest.raises(AssertionError, match="stored twice"):
        _check(World(recorded_first=False), steps)


# Closed by the clock after a record, with an answer or without; then another record comes, then another owner.
CLOSING: list[Step] = [
    ("produce", 0, 0),
    ("fetch", 0, 8),
    ("cut", 0, 1),
    ("record", 0, 0),
    ("insert", 0, 0),
    ("ack", 0, 0),
    ("close", 0, 20),
    ("produce", 0, 0),
    ("fetch", 0, 8),
    ("cut", 0, 1),
    ("record", 0, 0),
    ("reassign", 0, 0),
    ("close", 0, 24),
]
UNANSWERED = [("close", 0, 22) if step[0] == "close" else step for step in CLOSING]


@pytest.mark.parametrize(
    ("world", "steps", "message"),
    [
        pytest.param(World(unanswered_is_kept=True), UNANSWERED, "a closing was ignored", id="unanswered-is-kept"),
        pytest.param(World(closings_are_read=False), CLOSING, "a closing is lost", id="recorded-closings-ignored"),
        pytest.param(World(end_is_looked_at=False), CLOSING, "a closing was ignored", id="closed-before-the-end"),
    ],
)
def test_the_property_notices_a_closing_that_not_all_go_by(world: World, steps: list[Step], message: str) -> None:
    """The check fails when a worker has delivered past a closing that is recorded, or drops one."""
    with pytest.raises(AssertionError, match=message):
        _check(world, steps)
    _check(World(), steps)
