"""Inserts that are repeated: what an attempt has done stays done, and no row is inserted that may be stored."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytest

from pipeline.clickhouse.repeated_insert import RepeatedInsert
from pipeline.columns import Column, Mask
from pipeline.errors import HaltError

_ROWS = 4
_OK, _REFUSED, _LOST, _HALF = "stored", "refused before it got the rows", "no answer, nothing stored", "half stored"


class _Table:
    """A table whose server gives the answers it is told to give; later ones are good."""

    def __init__(self, inserts: Sequence[str] = (), looks: Sequence[bool] = (), known: Sequence[str] = ()) -> None:
        self.stored = list[int]()
        self.calls = list[str]()
        self._inserts = list(inserts)
        self._looks = list(looks)
        self._known = set(known)

    def insert(self, _table: str, columns: Mapping[str, Column], token: str, check: Callable[[], None]) -> None:
        rows, answer = np.asarray(columns["row"]).tolist(), self._inserts.pop(0) if self._inserts else _OK
        self.calls.append(f"insert {rows} {token}")
        if answer == _REFUSED:
            raise OSError(answer)
        check()
        stored = {_OK: rows, _HALF: rows[: len(rows) // 2], _LOST: []}[answer]
        self.stored += stored if token not in self._known else []
        if answer != _OK:
            raise OSError(answer)
        self._known.add(token)

    def find(self, columns: Mapping[str, Column], *, tried: bool) -> Mask:
        rows = np.asarray(columns["row"])
        self.calls.append(f"look {rows.tolist()}{' tried' * tried}")
        if not (self._looks.pop(0) if self._looks else True):
            raise OSError("refused")
        return ~np.isin(rows, self.stored)


def _insert(table: _Table, *, again: bool = False, check: Callable[[], None] = lambda: None) -> RepeatedInsert:
    return RepeatedInsert(
        cast("Any", table),
        "events",
        {"row": np.arange(_ROWS)},
        "t",
        find=table.find,
        check=check,
        look_first=False,
        look_after=again,
    )


def _until_it_returns(insert: RepeatedInsert) -> int:
    for _ in range(20):
        try:
            return insert.attempt()
        except OSError:
            continue
    raise AssertionError("it never returned")


def test_a_first_insert_that_succeeds_asks_nothing() -> None:
    """The usual way is one insert."""
    table = _Table()
    assert _insert(table).attempt() == _ROWS
    assert table.calls == ["insert [0, 1, 2, 3] t"]


def test_a_range_of_an_earlier_owner_is_looked_for_afterwards() -> None:
    """Its token may be known without its rows: then the rows get another one."""
    table = _Table(known=["t"])
    assert _until_it_returns(_insert(table, again=True)) == _ROWS
    assert table.calls == [
        "insert [0, 1, 2, 3] t",
        "look [0, 1, 2, 3] tried",
        "insert [0, 1, 2, 3] t/1",
        "look [0, 1, 2, 3] tried",
    ]
    assert table.stored == [0, 1, 2, 3]


def test_an_insert_that_got_no_rows_is_repeated_without_a_look() -> None:
    """A server that refuses a query before it takes the rows has stored none."""
    table = _Table(inserts=[_REFUSED, _REFUSED])
    _until_it_returns(_insert(table))
    assert table.calls == ["insert [0, 1, 2, 3] t"] * 3


@pytest.mark.parametrize(("answer", "rest"), [(_LOST, [0, 1, 2, 3]), (_HALF, [2, 3])])
def test_an_insert_without_an_answer_is_looked_for_first(answer: str, rest: list[int]) -> None:
    """Rows that are stored aren't sent again, and the rows are looked for once more after that."""
    table = _Table(inserts=[answer])
    _until_it_returns(_insert(table))
    assert table.calls == ["insert [0, 1, 2, 3] t", "look [0, 1, 2, 3]", f"insert {rest} t", f"look {rest} tried"]
    assert sorted(table.stored) == [0, 1, 2, 3]


def test_an_attempt_goes_on_where_the_one_before_it_failed() -> None:
    """A good look isn't made again for a refused insert, nor an insert for a refused look."""
    table = _Table(inserts=[_LOST, _REFUSED, _REFUSED], looks=[False, True, False, True])
    _until_it_returns(_insert(table))
    assert table.calls == [
        "insert [0, 1, 2, 3] t",
        "look [0, 1, 2, 3]",
        "look [0, 1, 2, 3]",
        "insert [0, 1, 2, 3] t",
        "insert [0, 1, 2, 3] t",
        "insert [0, 1, 2, 3] t",
        "look [0, 1, 2, 3] tried",
        "look [0, 1, 2, 3] tried",
    ]


def test_a_lease_that_is_over_when_the_server_waits_leaves_no_doubt() -> None:
    """The rows weren't sent: the repeated insert needs no look."""
    table, over = _Table(), iter([None, OSError("the lease is over")])

    def check() -> None:
        if error := next(over, None):
            raise error

    _until_it_returns(_insert(table, check=check))
    assert table.calls == ["insert [0, 1, 2, 3] t"] * 2


def test_rows_that_never_stay_halt_the_worker() -> None:
    """After five inserts with five tokens, somebody has to look at the table."""
    table = _Table(known=["t", "t/1", "t/2", "t/3", "t/4"])
    with pytest.raises(HaltError, match=r"table events: rows are missing right after each of 5 inserts"):
        _insert(table, again=True).attempt()
    assert [call.split()[-1] for call in table.calls if call.startswith("insert")] == ["t", "t/1", "t/2", "t/3", "t/4"]
