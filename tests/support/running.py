"""How pytest runs the tests: their order, their processes, and which of them are traced for the coverage."""

import gc
import sys
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import is_hypothesis_test
from xdist.scheduler.loadfile import LoadFileScheduling

_LONG = ("tests/chaos/", "tests/integration/test_snippets.py")  # a minute a test, and no fixture of a module
_TRACED_CASES = 20


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of garbage collections, of which a process makes thousands."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest tests first, then those that need servers: the quick ones fill the processes up at the end."""
    _trace_less(items)
    items.sort(key=lambda item: (item.get_closest_marker("integration") is None, not item.nodeid.startswith(_LONG)))


def _trace_less(items: list[pytest.Item]) -> None:
    """Trace some cases of each test for the coverage, and no long test or property: others reach the same lines."""
    tests: dict[str, list[pytest.Function]] = {}
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            way = item.callspec.params.get("decoding_path")
            tests.setdefault(f"{item.nodeid.partition('[')[0]} {way}", []).append(item)
        is_property = isinstance(item, pytest.Function) and is_hypothesis_test(item.function)
        if is_property or item.nodeid.startswith(_LONG):
            item.add_marker(pytest.mark.untraced)
    for cases in tests.values():
        cases.sort(key=lambda case: case.nodeid)  # the same ones in any order of the tests
        traced = {len(cases) * number // _TRACED_CASES for number in range(_TRACED_CASES)}
        for at, case in enumerate(cases):
            if at not in traced:
                case.add_marker(pytest.mark.untraced)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "Scheduling":
    """Give each test file to one process, as `--dist loadfile` does, but each long test by itself."""
    return Scheduling(config, log)


class Scheduling(LoadFileScheduling):  # type: ignore[misc] # it has no types
    """Units of work for the processes: files, which share servers, and long tests, which share nothing."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(_LONG) else super()._split_scope(nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Run a test that is marked `untraced` without the tracer of coverage, in this thread and in those that it starts.

    The mark of pytest-cov wouldn't do: it ends one of the measurements of xdist's processes, which have more. And each
    time that it goes on, coverage wraps `os._exit` once more, so that a child's end would take seconds.
    """
    tracer, of_threads = sys.gettrace(), threading.gettrace()
    is_coverage = type(tracer).__module__.startswith("coverage")  # and no debugger
    if not is_coverage or not item.get_closest_marker("untraced"):
        return (yield)
    sys.settrace(None)
    threading.settrace(cast("Any", None))
    try:
        return (yield)
    finally:
        sys.settrace(tracer)
        threading.settrace(cast("Any", of_threads))
