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
    "commit",
    "commit",
    "insert",
    "insert",
    "ack",
    "reassign",
    "retain",
    "abort",
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
    ("commit", 0, 0),
    ("insert", 0, 0),
    ("reassign", 0, 3),
    ("fetch", 0, 8),
    ("cut", 0, 1),
    ("commit", 0, 0),
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
def test_in_any_schedule_each_record_is_stored_once(steps: list[Step]) -> None:
    """Owners and former owners fetch, cut, commit, insert and acknowledge in any order."""
    _check(World(), steps)


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(World(ends_are_read=False), id="committed-ends-ignored"),
        pytest.param(World(tokens_repeat=False), id="random-tokens"),
    ],
)
def test_the_property_notices_a_record_that_is_stored_twice(world: World) -> None:
    """The check fails if a takeover cuts other ranges, or gives them other tokens."""
    with pytest.raises(AssertionError, match="stored twice"):
        _check(world, TAKEOVER)


def test_the_property_notices_a_delivery_before_the_commit() -> None:
    """The check fails if the next owner can't know the ranges in flight."""
    steps = [step for step in TAKEOVER if step[0] != "commit"]
    with pytest.raises(AssertionError, match="stored twice"):
        _check(World(commits_first=False), steps)


# Closed by the clock after a record, with an answer or without; then another record comes, then another owner.
CLOSING: list[Step] = [
    ("produce", 0, 0),
    ("fetch", 0, 8),
    ("cut", 0, 1),
    ("commit", 0, 0),
    ("insert", 0, 0),
    ("ack", 0, 0),
    ("close", 0, 20),
    ("produce", 0, 0),
    ("fetch", 0, 8),
    ("cut", 0, 1),
    ("commit", 0, 0),
    ("reassign", 0, 0),
    ("close", 0, 24),
]
UNANSWERED = [("close", 0, 22) if step[0] == "close" else step for step in CLOSING]


@pytest.mark.parametrize(
    ("world", "steps", "message"),
    [
        pytest.param(World(unanswered_is_kept=True), UNANSWERED, "a closing was ignored", id="unanswered-is-kept"),
        pytest.param(World(closings_are_read=False), CLOSING, "a closing is lost", id="committed-closings-ignored"),
        pytest.param(World(end_is_looked_at=False), CLOSING, "a closing was ignored", id="closed-before-the-end"),
    ],
)
def test_the_property_notices_a_closing_that_is_not_applied(world: World, steps: list[Step], message: str) -> None:
    """The check fails if a worker delivers past a committed closing without applying it, or drops one."""
    with pytest.raises(AssertionError, match=message):
        _check(world, steps)
    _check(World(), steps)
