"""Failures of a check before the worker starts: some are waited for, others end it."""

import pytest
from clickhouse_driver.errors import ServerException

from pipeline.clickhouse.client import explained
from pipeline.config import ClickHouseSettings
from pipeline.errors import HaltError, UnavailableError, UnclearError
from pipeline.troubles import Troubles
from pipeline.worker.preflight import _until_available

_UNLISTED = 1002  # UNKNOWN_EXCEPTION


def _check(failures: list[Exception], *, unclear_seconds: float = 60.0) -> int:
    """Run a check that fails in this way, and then succeeds; return the number of failures that are left."""

    def check() -> int:
        if failures:
            raise failures.pop(0)
        return len(failures)

    return _until_available("ClickHouse", Troubles(), check, unclear_seconds=unclear_seconds)


def test_an_unclear_failure_at_the_start_is_tried_again() -> None:
    """An unlisted code of the server passes for neither a mistake nor an absence."""
    with pytest.raises(UnclearError), explained(ClickHouseSettings()):
        raise ServerException("std::exception", _UNLISTED)
    assert _check([UnclearError("std::exception"), UnavailableError("down")]) == 0


def test_an_unclear_failure_at_the_start_ends_the_worker_after_a_while() -> None:
    """It isn't tried for ever."""
    with pytest.raises(UnclearError):
        _check([UnclearError("std::exception")] * 9, unclear_seconds=0.1)


def test_what_needs_a_person_ends_the_worker_at_once() -> None:
    """A wrong table is no reason to wait."""
    failures: list[Exception] = [HaltError("wrong"), HaltError("wrong")]
    with pytest.raises(HaltError):
        _check(failures)
    assert len(failures) == 1
