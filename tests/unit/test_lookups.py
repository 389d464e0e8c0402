"""Answers that a server cut short, as it may when a query is killed: they are failures."""

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.clickhouse.lookups import all_rows, marked_rows, named_rows
from pipeline.errors import UnavailableError

_ROWS = [(False, 1), (False, 2), (True, 0)]


class Client:
    """A client of a server that gives these answers, one after the other, or ends a stream after some rows."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)

    def execute(self, *_: object, **__: object) -> Any:
        return self._answers.pop(0)

    def execute_iter(self, _: str) -> Iterator[Any]:
        return iter(self._answers)


def test_a_stream_is_whole_with_its_last_row() -> None:
    """The row that marks the end isn't one of the result."""
    assert list(marked_rows(Client(*_ROWS), "")) == [(1,), (2,)]


@pytest.mark.parametrize("rows", range(len(_ROWS)))
def test_a_stream_that_is_cut_is_a_failure(rows: int) -> None:
    """Wherever it ends."""
    with pytest.raises(UnavailableError, match="without its whole result"):
        list(marked_rows(Client(*_ROWS[:rows]), ""))


_COUNT, _COLUMNS = [([(2,)],)], [("n", "UInt8")]


def test_an_answer_is_whole_with_all_of_its_rows() -> None:
    """An aggregate has one row; other rows are counted first, and have names."""
    assert all_rows(Client([([(1,), (2,)],)]), "") == [(1,), (2,)]
    assert named_rows(Client(_COUNT, ([(1,), (2,)], _COLUMNS)), "") == ([(1,), (2,)], _COLUMNS)


@pytest.mark.parametrize(
    "answers", [([],), (_COUNT, ([(1,)], _COLUMNS)), (_COUNT, ([], _COLUMNS)), ([([(0,)],)], ([], []))]
)
def test_an_answer_that_lacks_rows_or_columns_is_a_failure(answers: tuple[Any, ...]) -> None:
    """Some, or all of them."""
    with pytest.raises(UnavailableError, match="without its whole result"):
        named_rows(Client(*answers), "")


def test_an_aggregate_without_its_row_is_a_failure() -> None:
    """It isn't an aggregate of no rows."""
    with pytest.raises(UnavailableError, match="without its whole result"):
        all_rows(Client([]), "")
