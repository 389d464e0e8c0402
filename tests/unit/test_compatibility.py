"""Schema versions are compatible if the newest accepts every record that an older one allowed."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from pipeline.cli.schemas import schemas as command
from pipeline.config import Settings, env_name
from pipeline.schema.compatibility import problems
from pipeline.schema.versions import load_schemas

_ID = {"name": "id", "type": "string", "privacy": "text"}
_MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 6}
_UUID = {"type": "string", "logicalType": "uuid"}
_MOMENT = {"type": "long", "logicalType": "timestamp-millis"}

_Fields = list[dict[str, Any]]


def _write(directory: Path, versions: Sequence[_Fields]) -> Path:
    for version, fields in enumerate(versions, start=1):
        record = {"type": "record", "name": "Thing", "fields": [_ID, *fields]}
        (directory / f"thing.v{version}.avsc").write_bytes(orjson.dumps(record))
    return directory


def _problems(directory: Path, *versions: _Fields) -> list[str]:
    return [str(problem) for problem in problems(load_schemas(_write(directory, versions)))]


def _n(avro_type: Any, **attributes: Any) -> dict[str, Any]:
    """A field `n`; a string with open text declares a treatment."""
    privacy = {"privacy": "text"} if avro_type == "string" and "values" not in attributes else {}
    return {"name": "n", "type": avro_type, **privacy, **attributes}


def test_the_schemas_of_the_project_are_compatible() -> None:
    """The schemas of the project are compatible."""
    assert problems(load_schemas(Settings().schemas.directory)) == ()


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        pytest.param([], [_n("int", default=1)], id="a field with a default"),
        pytest.param([], [_n(_MONEY, default="\u0001", min="0")], id="money with a default"),
        pytest.param([_n("int")], [], id="a field less"),
        pytest.param([_n("int")], [_n("long")], id="int to long"),
        pytest.param([_n("int", min=0)], [_n("double", min=0)], id="int to double"),
        pytest.param([_n("int", min=1, max=8)], [_n("int", min=0, max=9)], id="wider bounds"),
        pytest.param([_n("int", max=8)], [_n("int")], id="no bound any more"),
        pytest.param([_n("int")], [_n("long", min=-(2**31), max=2**31 - 1)], id="bounds that the type had"),
        pytest.param([_n(_MONEY, min="0")], [_n(_MONEY, min="-1.5")], id="wider bounds of money"),
        pytest.param([_n("string", values=["a"])], [_n("string", values=["b", "a"])], id="another value"),
        pytest.param([_n("string", values=["a"])], [_n("string", pattern="^[a-z]$")], id="an open set"),
        pytest.param([_n("string", max_length=8)], [_n("string", max_length=9)], id="longer text"),
        pytest.param([_n("string", pattern="^a$")], [_n("string", pattern="^a$")], id="the same pattern"),
        pytest.param([_n("string", pattern="^a$")], [_n("string", doc="Any.")], id="no pattern any more"),
    ],
)
def test_a_wider_version_is_compatible(tmp_path: Path, older: _Fields, newer: _Fields) -> None:
    """A wider declaration is no problem."""
    assert _problems(tmp_path, older, newer) == []


@pytest.mark.parametrize(
    ("older", "newer", "problem"),
    [
        pytest.param([], [_n("int")], "n: ", id="a required field more"),
        pytest.param([_n("long")], [_n("int")], "n: ", id="long to int"),
        pytest.param([_n("string")], [_n("int")], "n: ", id="text to number"),
        pytest.param([_n("bytes")], [_n("string")], "n: expected bytes, got string", id="bytes to text"),
        pytest.param([_n("string")], [_n(_UUID)], "n: expected string, got uuid", id="text to UUID"),
        pytest.param([_n(_MOMENT)], [_n("long")], "n: ", id="a moment to a number"),
        pytest.param([_n(_MONEY)], [_n({**_MONEY, "scale": 2})], "n: ", id="another scale"),
        pytest.param([_n("int")], [_n("int", min=0)], "n: min: expected at most -2147483648, got 0", id="a new bound"),
        pytest.param([_n("int", max=9)], [_n("int", max=8)], "n: max: expected at least 9, got 8", id="a tighter max"),
        pytest.param(
            [_n(_MONEY, min="0")], [_n(_MONEY, min="0.5")], "n: min: expected at most 0, got 0.5", id="a tighter price"
        ),
        pytest.param(
            [_n("string", values=["a", "b"])],
            [_n("string", values=["a"])],
            "n: expected to accept 'b' as before, accepts one of a",
            id="a value less",
        ),
        pytest.param(
            [_n("string", values=["a", "b"])],
            [_n("string", pattern="^a$")],
            "n: expected to accept 'b' as before, accepts text that matches ^a$",
            id="a pattern that excludes a value",
        ),
        pytest.param([_n("string")], [_n("string", values=["a"])], "n: one_of: expected none, as before", id="closed"),
        pytest.param(
            [_n("string")], [_n("string", pattern="^a$")], "n: pattern: expected none, as before", id="a pattern"
        ),
        pytest.param(
            [_n("string", pattern="^a$")],
            [_n("string", pattern="^b$")],
            "n: pattern: expected ^a$, as before, or none",
            id="another pattern",
        ),
        pytest.param(
            [_n("string", max_length=9)],
            [_n("string", max_length=8)],
            "n: max_length: expected 9, as before, or more; got 8",
            id="shorter text",
        ),
    ],
)
def test_a_narrower_version_is_a_problem(tmp_path: Path, older: _Fields, newer: _Fields, problem: str) -> None:
    """One line names the file, the field and the version whose records would be rejected."""
    (found,) = _problems(tmp_path, older, newer)
    assert found.startswith(f"{tmp_path / 'thing.v2.avsc'}: {problem}")
    assert found.endswith("(records of thing.v1.avsc)")


@pytest.mark.parametrize(
    "field",
    [
        pytest.param(_n("int", default=0, min=1), id="a number"),
        pytest.param(_n("string", default="c", values=["a", "b"]), id="text"),
        pytest.param(_n(_MONEY, default="\u00ff", min="0"), id="money"),
    ],
)
def test_a_default_that_its_own_bounds_refuse_is_a_problem(tmp_path: Path, field: dict[str, Any]) -> None:
    """Every record without the field would be rejected."""
    (found,) = _problems(tmp_path, [field])
    assert found.startswith(f"{tmp_path / 'thing.v1.avsc'}: n: default: expected ")


@pytest.mark.parametrize("attributes", [{}, {"pattern": "^[a-z]{1,9}$"}], ids=["free text", "an open pattern"])
def test_an_open_string_without_a_treatment_is_a_problem(tmp_path: Path, attributes: dict[str, Any]) -> None:
    """The newest version must declare a treatment; older versions needn't."""
    silent = {"name": "n", "type": "string", **attributes}
    (found,) = _problems(tmp_path, [silent])
    assert found.startswith(f'{tmp_path / "thing.v1.avsc"}: n.privacy: expected "keep", "text", ')
    assert _problems(tmp_path, [silent], [{**silent, "privacy": "text"}]) == []


def test_every_older_version_counts(tmp_path: Path) -> None:
    """A field that is dropped and returns with another type breaks the records of the first version.

    v1: n int      v2: no n      v3: n string, with a default
    """
    (found,) = _problems(tmp_path, [_n("int")], [], [_n("string", default="")])
    assert re.search(r"thing\.v3\.avsc: n: .*\(records of thing\.v1\.avsc\)", found)


@pytest.mark.parametrize(
    ("newer", "exit_code"), [([_n("int", default=1)], 0), ([_n("int")], 1)], ids=["compatible", "not"]
)
def test_the_command_ends_with_0_or_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newer: _Fields, exit_code: int
) -> None:
    """Standard output lists families, standard error lists problems."""
    monkeypatch.setenv(env_name("schemas", "directory"), str(_write(tmp_path, [[], newer])))
    monkeypatch.setattr("pipeline.cli.schemas.refusals", lambda _: [])
    result = CliRunner().invoke(command, ["check"], catch_exceptions=False)
    assert result.exit_code == exit_code
    assert result.stdout.removesuffix("  (numpy, by column; compiled core)\n") == (
        "broken  thing  v1, v2\n" if exit_code else "ok      thing  v1, v2"
    )
    assert result.stderr.count("thing.v2.avsc: n: ") == exit_code
