"""Exactly once over takeovers: records of a committed range are cut again under its token."""

from collections.abc import Sequence

import pytest
from support.takeovers import owner_of, records_of

from pipeline.transport.micro_batch import State

# The states of ClickHouse's own Kafka Connect sink (its docs/DESIGN.md), for a last insert of the offsets 10 to 19. The
# sink knows that it was begun (BEFORE) or that it succeeded (AFTER), and takes records from wherever they come. We have
# it committed as a range in flight, or as done, and we ask for what comes after what is done.

BEFORE = State(10, (19,))
AFTER = State(20, ())

Cut = tuple[str, Sequence[int]]


@pytest.mark.parametrize(
    ("state", "come", "cut"),
    [
        # New: what was in flight has been deleted by retention; its range is closed, and not given to other records.
        pytest.param(BEFORE, range(20, 30), [("id/0/20-29", range(20, 30))], id="new-before"),
        pytest.param(AFTER, range(20, 30), [("id/0/20-29", range(20, 30))], id="new-after"),
        # Same: once more under its token, which ClickHouse drops if it knows it.
        pytest.param(BEFORE, range(10, 20), [("id/0/10-19", range(10, 20))], id="same-before"),
        # Contained: a part isn't inserted under any token; the sink gives up here.
        pytest.param(BEFORE, range(12, 16), [], id="contained-before"),
        pytest.param(BEFORE, range(10, 19), [], id="contained-from-the-start-before"),
        # With its end it is whole: what is missing of it is in Kafka no more, so nobody inserts another part of it.
        pytest.param(BEFORE, range(12, 20), [("id/0/10-19", range(12, 20))], id="contained-to-the-end-before"),
        # Overlapping: the same, then the rest; the policy isn't asked about what was in flight.
        pytest.param(
            BEFORE,
            range(10, 30),
            [("id/0/10-19", range(10, 20)), ("id/0/20-29", range(20, 30))],
            id="overlapping-before",
        ),
        pytest.param(
            BEFORE,
            range(15, 30),
            [("id/0/10-19", range(15, 20)), ("id/0/20-29", range(20, 30))],
            id="overlapping-its-end-before",
        ),
    ],
)
def test_a_range_in_flight_is_cut_as_it_was(state: State, come: Sequence[int], cut: list[Cut]) -> None:
    """Records of a range in flight are cut under its token when the range is complete, not earlier."""
    owner = owner_of(state)
    owner.add(records_of(come), 0.0)
    batches = [(batch.token, [record.offset for record in batch.records]) for batch in owner.cut(0.0, hurry=True)]
    assert batches == [(token, list(offsets)) for token, offsets in cut]


@pytest.mark.parametrize(
    ("state", "come"),
    [
        pytest.param(AFTER, range(10, 20), id="same-after"),
        pytest.param(AFTER, range(12, 16), id="contained-after"),
        pytest.param(AFTER, range(10, 30), id="overlapping-after"),
        pytest.param(BEFORE, range(5, 9), id="previous-before"),
        pytest.param(AFTER, range(5, 9), id="previous-after"),
        pytest.param(BEFORE, range(8, 20), id="previous-and-same-before"),
        pytest.param(BEFORE, range(10), id="zero-before"),
        pytest.param(AFTER, range(10), id="zero-after"),
    ],
)
def test_a_done_record_does_not_come_again(state: State, come: Sequence[int]) -> None:
    """A record below the next offset isn't dropped as a repetition; it is an error."""
    with pytest.raises(ValueError, match=f"offset {come[0]} came where {state.offset} was expected"):
        owner_of(state).add(records_of(come), 0.0)


@pytest.mark.parametrize("state", [BEFORE, AFTER], ids=["before", "after"])
def test_another_topic_of_the_same_name_has_other_tokens(state: State) -> None:
    """A topic that was deleted and created again begins at offset 0, and shares no token with its predecessor."""
    former = owner_of(State(0, (9, *state.ends)))
    former.add(records_of(range(20)), 0.0)
    anew = owner_of(State(0, ()), topic_id="another")
    anew.add(records_of(range(20)), 0.0)
    assert not {batch.token for batch in former.cut(0.0, hurry=True)} & {batch.token for batch in anew.cut(0.0)}
