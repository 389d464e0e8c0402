"""Limits on the code's structure, so that someone new finds the data path in the file names."""

import ast
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pipeline"
FILES = [file for folder in ("pipeline", "tests", "benchmarks") for file in sorted((ROOT / folder).rglob("*.py"))]

MOST_MODULES = 12
# columns/ has the forms of data that the packages hand to each other; operations/ is what people run beside the data
# path.
MOST_PACKAGES = 14
MOST_LINES_OF_A_MODULE = 350
MOST_LINES_OF_A_CLASS = 200
MOST_LINES_OF_A_FUNCTION = 40
MOST_LINES_OF_THE_MEDIAN_MODULE = 120
MOST_RIDDLES = 0.02  # of all docstrings
_RIDDLE = re.compile(r"(What|Whether|How|Those|Of|Where|Who)\b")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def _trees() -> dict[str, ast.Module]:
    """The parsed modules by their paths."""
    return {file.relative_to(ROOT).as_posix(): ast.parse(file.read_text(encoding="utf-8")) for file in FILES}


def test_the_top_of_the_package_is_small() -> None:
    """The top of pipeline/ has at most 12 modules and 14 packages."""
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_MODULES
    assert len(list(PACKAGE.glob("*/__init__.py"))) <= MOST_PACKAGES


def test_modules_are_short() -> None:
    """No module is over 350 lines, and the median module of pipeline/ has at most 120."""
    lengths = {file.relative_to(ROOT).as_posix(): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES_OF_A_MODULE} == {}
    median = statistics.median(length for name, length in lengths.items() if name.startswith("pipeline/"))
    assert median <= MOST_LINES_OF_THE_MEDIAN_MODULE


def test_classes_and_functions_are_short() -> None:
    """No class is over 200 lines, no function over 40."""
    too_long = {
        f"{name}:{node.lineno} {node.name}": _lines(node)
        for name, tree in _trees().items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and _lines(node) > (MOST_LINES_OF_A_CLASS if isinstance(node, ast.ClassDef) else MOST_LINES_OF_A_FUNCTION)
    }
    assert too_long == {}


def test_docstrings_name_their_thing_first() -> None:
    """At most 2 % of the docstrings open with What, Whether, How, Those, Of, Where or Who."""
    openings = {place: text.partition("\n")[0] for place, text in _docstrings()}
    riddles = {place: text for place, text in openings.items() if _RIDDLE.match(text)}
    assert len(riddles) <= MOST_RIDDLES * len(openings), riddles


def test_each_class_of_the_package_has_a_name_of_its_own() -> None:
    """No two classes of pipeline/ have one name."""
    modules = defaultdict[str, list[str]](list)
    for name, tree in _trees().items():
        if name.startswith("pipeline/"):
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    modules[node.name].append(name)
    assert {name: places for name, places in modules.items() if len(places) > 1} == {}


def test_the_imports_keep_to_the_layers() -> None:
    """`lint-imports` finds nothing in the code as it is."""
    checked = _lint_imports(ROOT)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        pytest.param("schema/fields.py", "import pipeline.catalog", id="a package from a layer above"),
        pytest.param("dlq/index.py", "import pipeline.rollup.fold", id="a package beside it"),
        pytest.param("rollup/fold.py", "import clickhouse_driver", id="ClickHouse's client outside its wrapper"),
        pytest.param("worker/ingest.py", "import aiokafka", id="aiokafka outside the transport"),
        pytest.param("transport/commits.py", "import aiokafka", id="aiokafka in the transport's generic part"),
        pytest.param("kafka/topics.py", "import faust", id="Faust in a tool"),
        pytest.param("decode/cursor.py", "import confluent_kafka", id="a Kafka client in the data path"),
    ],
)
def test_a_forbidden_import_fails_the_check(module: str, line: str, tmp_path: Path) -> None:
    """`lint-imports` refuses an import that crosses the layers, and says which."""
    shutil.copytree(PACKAGE, tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "pipeline" / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    refused = _lint_imports(tmp_path)
    assert refused.returncode == 1
    assert (
        f"pipeline.{module.removesuffix('.py').replace('/', '.')} -> {line.removeprefix('import ')}" in refused.stdout
    )


def test_the_generic_part_of_the_transport_is_all_but_its_edge() -> None:
    """The contract lists every module of transport/ that isn't made for Faust or aiokafka."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    listed = next(each["source_modules"] for each in contracts if each["name"].startswith("The generic part"))
    modules = {f"pipeline.transport.{file.stem}" for file in (PACKAGE / "transport").glob("*.py")}
    assert set(listed) == modules - {f"pipeline.transport.{name}" for name in ("__init__", "consumer")}


def _lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def _docstrings() -> Iterator[tuple[str, str]]:
    for name, tree in _trees().items():
        for node in ast.walk(tree):
            if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
                yield f"{name}:{getattr(node, 'lineno', 1)}", text


def _lines(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1
