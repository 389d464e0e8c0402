"""Rules for the tests themselves, checked in their source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.untraced  # runs no line of the package

TESTS = Path(__file__).parents[1]


def _imported(tree: ast.Module) -> dict[str, str]:
    """Full names of the things that a module imports, by their local names."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _targets(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full name of each attribute of the pipeline that the module sets, if the name is constant."""
    imported = _imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "setattr":
            match node.args:
                case [ast.Constant(value=str(target)), *_]:
                    yield node.lineno, target
                case [owner, ast.Constant(value=str(name)), *_]:
                    yield node.lineno, f"{imported.get(ast.unparse(owner), '')}.{name}"
        elif isinstance(node, ast.Assign):
            for each in node.targets:
                if isinstance(each, ast.Attribute):
                    yield node.lineno, f"{imported.get(ast.unparse(each.value), '')}.{each.attr}"


def _is_constant(target: str) -> bool:
    """True for a module constant of the pipeline: `pipeline.….NAME` or `pipeline.…._NAME`."""
    return target.startswith("pipeline.") and target.rpartition(".")[2].isupper()


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """The parsed modules of the tests by their paths, without this one."""
    modules = (path for path in sorted(TESTS.rglob("*.py")) if path != Path(__file__))
    return {str(path.relative_to(TESTS)): ast.parse(path.read_text(encoding="utf-8")) for path in modules}


def test_no_test_patches_a_constant_of_the_pipeline(trees: dict[str, ast.Module]) -> None:
    """Limits and timeouts that tests change are arguments or settings.

    A patched constant breaks without a word: after a rename or a move the patch hits a name that nobody reads, the test
    runs with the real limit, and still passes. An argument is checked by mypy, and shows a reader that it may vary.
    """
    patched = [
        f"{path}:{line} {target}"
        for path, tree in trees.items()
        for line, target in _targets(tree)
        if _is_constant(target)
    ]
    assert patched == []


def test_no_assertion_compares_a_duration_with_the_bound_of_all_waits(trees: dict[str, ast.Module]) -> None:
    """That bound is wide, for busy machines; a test that promises a duration has a bound of its own."""
    compared = [
        (path, operand)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        for operand in (node.left, *node.comparators)
        if isinstance(operand, ast.Name | ast.BinOp)
    ]
    assert [f"{path}:{each.lineno}" for path, each in compared if "PATIENCE_SECONDS" in ast.unparse(each)] == []


def test_no_test_module_imports_another(trees: dict[str, ast.Module]) -> None:
    """Helpers that several modules use are in tests/support, so that each test module can be read and moved alone."""
    others = {
        f"{path}: {name}"
        for path, tree in trees.items()
        for name in _imported(tree).values()
        if name.rpartition(".")[0].startswith("test_")
    }
    assert others == set()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ('monkeypatch.setattr("pipeline.dlq.log._ANSWER_SECONDS", 0.5)', "pipeline.dlq.log._ANSWER_SECONDS"),
        (
            "from pipeline.rollup import late\npatch.setattr(late, 'MOST_WINDOWS', 3)",
            "pipeline.rollup.late.MOST_WINDOWS",
        ),
        ("import pipeline.retry as again\nagain.MOST = 1", "pipeline.retry.MOST"),
    ],
    ids=["by name", "by module", "by assignment"],
)
def test_a_patch_is_found(source: str, target: str) -> None:
    """The check sees each way of patching a constant."""
    assert [name for _, name in _targets(ast.parse(source)) if _is_constant(name)] == [target]
