"""Differences of an hour whose query was killed: the server may end it without an error, and without its last rows."""

from datetime import date
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from pipeline.errors import UnavailableError
from pipeline.rollup.audit import Audit, Hour, Kind

_HOUR = Hour(3600, date(1970, 1, 1), 0, 1)
_NONE = (0, 0, 0, 0, 0)
_EXTRA = (False, UUID(int=7), 1, (5, 0, 0, 2, 1), 0, _NONE)
_END = (True, UUID(int=0), 0, _NONE, 0, _NONE)


def _kinds(*rows: tuple[Any, ...]) -> list[Kind]:
    client = SimpleNamespace(execute_iter=lambda _query: iter(rows))
    return [difference.kind for difference in Audit(client, "ui_events").differences(_HOUR)]


def test_a_result_with_its_last_row_is_whole() -> None:
    """The last row itself is no difference."""
    assert _kinds(_END) == []
    assert _kinds(_EXTRA, _END) == [Kind.EXTRA]


@pytest.mark.parametrize("rows", [(), (_EXTRA,)], ids=["nothing", "some"])
def test_a_result_without_its_last_row_is_a_failure(rows: tuple[tuple[Any, ...], ...]) -> None:
    """It would look like an hour with fewer differences, or none."""
    with pytest.raises(UnavailableError, match="without its whole result"):
        _kinds(*rows)
