"""No module that derives, closes or commits reads the time of day of its machine."""

import ast
from pathlib import Path

import pytest

import pipeline

_PACKAGES = ("rollup", "transport", "decode")
_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "date.today", "datetime.today"}


def _clocks(source: str) -> set[str]:
    tree = ast.parse(source)
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    imported = {
        f"{node.module}.{name.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    return (used | imported) & _CLOCKS


@pytest.mark.parametrize("package", _PACKAGES)
def test_no_module_reads_the_time_of_day(package: str) -> None:
    """The broker's time and monotonic clocks are the only ones; see docs/decisions/0040."""
    modules = sorted((Path(pipeline.__file__).parent / package).rglob("*.py"))
    assert modules
    assert {str(module): found for module in modules if (found := _clocks(module.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize("source", ["import time\nnow = time.time", "from time import time", "datetime.now(UTC)"])
def test_the_check_finds_a_clock(source: str) -> None:
    """Calls, references and imports count."""
    assert _clocks(source)
