"""Joint inserts of hours: in any schedule of workers, failures and late arrivals, each row is stored once."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.joint_defects import DEFECTS
from support.joint_inserts import ACTIONS, ANSWERS, BROKER_ANSWERS, Parts, Step, run

from pipeline.rollup.emission import Emission

STEPS = st.lists(
    st.tuples(
        st.sampled_from([*ACTIONS, "close", "store", "store", "settle"]),
        st.integers(0, 7) | st.integers(0, 255),
        st.lists(st.sampled_from(ANSWERS + BROKER_ANSWERS), max_size=4),
    ),
    max_size=40,
)
_BY_NAME = [pytest.param(*defect, id=name) for name, defect in DEFECTS.items()]


@given(steps=STEPS)
def test_in_any_schedule_each_row_is_stored_once(steps: list[Step]) -> None:
    """A late insert has rows of partitions that other workers own by now, and of several days."""
    run(steps)


@pytest.mark.parametrize(("parts", "steps"), _BY_NAME)
def test_the_schedules_notice_each_defect(parts: Parts, steps: list[Step]) -> None:
    """Each schedule stores rows twice or loses them with its defect, and stores all rows once without it."""
    run(steps)
    with pytest.raises(AssertionError, match=r"stored twice|^lost"):
        run(steps, parts)


@pytest.mark.parametrize("defect", ["names-are-not-committed", "forgotten-names-are-committed"])
def test_an_insert_notices_a_committed_state_that_is_not_its_own(defect: str) -> None:
    """The worker stops before the rows are sent."""
    parts, steps = DEFECTS[defect]
    with pytest.raises(AssertionError, match="isn't committed with"):
        run(steps, replace(parts, emission=Emission))


def test_closed_hours_of_all_partitions_are_one_insert() -> None:
    """An hour alone has the token of its own; a block that is full makes a second insert."""
    alone: list[Step] = [("close", 0, []), ("store", 0, [])]
    three: list[Step] = [*[("close", number, []) for number in range(3)], ("store", 0, [])]
    six: list[Step] = [*[("close", 18 + number, []) for number in range(3)], ("store", 0, [])]
    tokens = [token.partition("/")[0] for token in run([*alone, *three, *six]).table.tokens]
    assert tokens == ["id", "joint", "joint", "joint"]
