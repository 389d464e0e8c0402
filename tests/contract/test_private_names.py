"""Each name in `support.private_names` exists and is used as we count on, and the pipeline uses no other private name.

A new version of Faust, aiokafka, clickhouse-driver or confluent-kafka may move or rename them. These tests fail then,
before a worker does.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.private_name import Name
from support.private_names import NAMES

pytestmark = pytest.mark.untraced  # runs no line of the package

PIPELINE = Path(__file__).parents[2] / "pipeline"
THREAD = "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread"
LIBRARIES = {"faust", "mode", "aiokafka", "confluent_kafka", "clickhouse_driver", "clickhouse_migrations"}


def _found(path: str) -> Any:
    """Import what `module:qualified.name` names."""
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        assert hasattr(found, part), f"{path}: {found!r} has no {part}"
        found = getattr(found, part)
    return found


def _source(thing: Any) -> str:
    return inspect.getsource(getattr(thing, "fget", None) or getattr(thing, "func", None) or inspect.unwrap(thing))


def _classes(thing: type) -> Iterator[type]:
    """Classes of a library that a class inherits from, and itself; without Python's own and the pipeline's."""
    for each in thing.__mro__:
        if each.__module__.partition(".")[0] in LIBRARIES | {"asyncio"}:
            yield each


def _is_set(owner: type, attribute: str) -> bool:
    """Tell whether a method of the class sets an attribute of its instances."""
    return any(
        ast.unparse(target) == f"self.{attribute}"
        for each in _classes(owner)
        for node in ast.walk(ast.parse(inspect.cleandoc("\n" + inspect.getsource(each))))
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    )


def _check(name: Name) -> None:
    owner, is_set, attribute = name.where.partition("().")
    if is_set:
        assert _is_set(_found(owner), attribute), f"{owner} doesn't set {attribute}"
    else:
        found = _found(name.where)
        if name.parameters is not None:
            assert " ".join(inspect.signature(found).parameters) == name.parameters
    if name.used_in is not None:
        function, use = name.used_in
        assert use in _source(_found(function)), f"{function} doesn't use it as in: {use}"


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.where)
def test_the_name_exists_and_is_used_as_we_count_on(name: Name) -> None:
    """The installed version of the library has it, with these parameters, and calls it at this place."""
    _check(name)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(Name("aiokafka:AIOKafkaConsumer._gone", ""), id="function"),
        pytest.param(Name("aiokafka:AIOKafkaConsumer()._gone", ""), id="attribute"),
        pytest.param(Name("aiokafka.gone:Gone", ""), id="module"),
        pytest.param(Name(f"{THREAD}._ensure_consumer", "", "self other"), id="parameters"),
        pytest.param(Name(f"{THREAD}._ensure_consumer", "", None, (f"{THREAD}.getmany", "gone")), id="use"),
    ],
)
def test_the_check_notices_a_name_that_vanished(name: Name) -> None:
    """A name, its parameters or its use may be gone in another version."""
    with pytest.raises((AssertionError, ImportError)):
        _check(name)


# Names that the pipeline uses.

_DECLARED = {part for name in NAMES for part in name.where.replace("()", "").replace(":", ".").split(".")}
_PYTHON = {"_replace", "_asdict", "_make", "_value_", "_exit"}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Module and name of each import from a library."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, alias.asname or alias.name) for alias in node.names if _of_library(alias.name))
        elif isinstance(node, ast.ImportFrom) and _of_library(node.module or ""):
            yield from ((node.module or "", alias.asname or alias.name) for alias in node.names)


def _of_library(module: str) -> bool:
    return module.partition(".")[0] in LIBRARIES


def _uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of each private name that a module uses of an object that isn't its own."""
    imported = {local: module for module, local in _imported(tree)}
    for local, module in imported.items():
        yield from ((1, part) for part in (*module.split("."), local) if _is_private(part))
    own = set(_of_own_class(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in {"self", "cls"}:
            if _is_private(node.attr) and node not in own:
                yield node.lineno, node.attr
            if isinstance(node.ctx, ast.Store) and ast.unparse(node.value).partition(".")[0] in imported:
                yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("attr", "attrgetter")):
            # Names that are given as strings: `getattr(consumer, "_client")`.
            values = [each.value for each in node.args if isinstance(each, ast.Constant)]
            yield from ((node.lineno, value) for value in values if isinstance(value, str) and _is_private(value))


def _of_own_class(tree: ast.Module) -> Iterator[ast.Attribute]:
    """Private names that a class uses of another object of its own, as `cls.restore` does: `counts._sum`.

    The object is a plain variable, and the class itself defines the name: `counts.log._sum` isn't such a use.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            within = list(ast.walk(node))
            defined = {each.name for each in within if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
            attributes = [each for each in within if isinstance(each, ast.Attribute)]
            defined |= {
                each.attr
                for each in attributes
                if ast.unparse(each).startswith("self.") and isinstance(each.ctx, ast.Store)
            }
            yield from (each for each in attributes if isinstance(each.value, ast.Name) and each.attr in defined)


def _inherited(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of each private name that a class overrides or reads, and that its base in a library has."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        bases = list(_classes(getattr(importlib.import_module(module), node.name)))
        source = "\n".join(map(inspect.getsource, bases))
        for each in ast.walk(node) if bases else ():
            name = getattr(each, "name", "") if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) else ""
            if isinstance(each, ast.Attribute) and ast.unparse(each.value) == "self":
                name = each.attr
            if _is_private(name) and re.search(rf"(self\.|def ){name}\b", source):
                yield getattr(each, "lineno", 1), name


@pytest.mark.parametrize("path", sorted(PIPELINE.rglob("*.py")), ids=lambda path: str(path.relative_to(PIPELINE)))
def test_no_module_uses_a_private_name_that_is_not_declared(path: Path) -> None:
    """A reach into a library is declared above with its reason."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    uses = list(_uses(tree))
    if any(_imported(tree)):
        uses += _inherited(".".join(path.relative_to(PIPELINE.parent).with_suffix("").parts), tree)
    assert [f"line {line}: {name}" for line, name in uses if name not in _DECLARED | _PYTHON] == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        pytest.param("import faust\nfaust.app._secret()", ["_secret"], id="reach"),
        pytest.param("def f(x):\n    return x._secret", ["_secret"], id="without-an-import"),
        pytest.param("from aiokafka.client import _secret", ["_secret"], id="import"),
        pytest.param("from aiokafka import client\nclient.Public = 1", ["Public"], id="patch"),
        pytest.param("class A:\n    def f(self):\n        return self._x", [], id="own"),
        pytest.param("def f(self):\n    return self._thread.client._client", ["_client"], id="through-a-variable"),
        pytest.param(
            "class A:\n    def f(self, a):\n        self._x = a._x\n        self._x = a.b._x", ["_x"], id="same-class"
        ),
        pytest.param("def f(a):\n    return getattr(a, '_secret', None)", ["_secret"], id="string"),
    ],
)
def test_the_check_notices_a_private_name(source: str, found: list[str]) -> None:
    """Each way to reach into a library is found; the pipeline's own private names aren't."""
    assert [name for _, name in _uses(ast.parse(source))] == found
