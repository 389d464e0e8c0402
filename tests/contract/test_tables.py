"""Each family's newest schema and its table, as the migrations create it, hold each other to the contract."""

import re
from dataclasses import replace
from typing import Any

import pytest

from pipeline.config import load_settings
from pipeline.contract import check_table
from pipeline.errors import HaltError
from pipeline.families import Family, load_catalog
from pipeline.migrate import MIGRATIONS

_FAMILIES = {family.name: family for family in load_catalog(load_settings()).families}
_COLUMN = re.compile(r"^    (?P<name>\w+) (?P<type>[\w(),']+?)(?: DEFAULT .*?)?,?$", re.MULTILINE)


def _columns(table: str) -> dict[str, str]:
    (file,) = MIGRATIONS.glob(f"*_{table}.sql")
    definition = file.read_text(encoding="utf-8").partition(") ENGINE")[0]
    return {match["name"]: match["type"] for match in _COLUMN.finditer(definition)}


def _with(family: Family, name: str, **changes: Any) -> Family:
    """The family with one field of its newest schema changed."""
    fields = tuple(replace(field, **changes) if field.name == name else field for field in family.schema.fields)
    return replace(family, schemas=(replace(family.schema, fields=fields),))


@pytest.mark.parametrize("name", _FAMILIES)
def test_the_newest_schema_fits_its_table(name: str) -> None:
    """Every column has its field, every field its column, and every valid value fits."""
    columns = _columns(_FAMILIES[name].table)
    assert len(columns) == len(_FAMILIES[name].schema.fields)
    check_table(_FAMILIES[name], columns)


@pytest.mark.parametrize("name", _FAMILIES)
def test_the_key_is_a_field_that_every_record_brings(name: str) -> None:
    """A key with a default would gather unrelated records in one partition."""
    family = _FAMILIES[name]
    assert family.schema.by_name[family.key].required


@pytest.mark.parametrize(
    ("field", "changes", "expected"),
    [
        pytest.param("ts", {"logical_type": None}, "timestamp-millis", id="a plain long for a moment"),
        pytest.param("ts", {"maximum": 10**14}, "timestamp-millis from 1900 to 2299", id="a moment beyond DateTime64"),
        pytest.param("run_id", {"logical_type": None}, "uuid", id="any string for a UUID"),
        pytest.param("series", {"pattern": None}, "values or a pattern", id="free text for a dictionary"),
        pytest.param("episode_num", {"maximum": 65536}, "from 0 to 65535", id="one more than UInt16 holds"),
        pytest.param("episode_num", {"minimum": -1}, "from 0 to 65535", id="a negative number for UInt16"),
        pytest.param("tokens_total", {"maximum": None}, "from 0 to 4294967295", id="no bound for UInt32"),
        pytest.param("title", {"type": "bytes"}, "string", id="bytes for text"),
        pytest.param("confidence_score", {"type": "double"}, "float", id="a double for Float32"),
        pytest.param("cost_total", {"precision": 13}, "precision 12 and scale 6", id="one digit too many"),
        pytest.param("cost_total", {"scale": 2}, "precision 12 and scale 6", id="cents for millionths"),
        pytest.param("commit_sha", {"pattern": re.compile("^[0-9a-f]{7}$")}, "{40}", id="a short commit"),
        pytest.param("commit_sha", {"pattern": re.compile("[0-9a-f]{40}|")}, "{40}", id="perhaps no commit"),
    ],
)
def test_a_field_that_its_column_cant_hold_halts(field: str, changes: dict[str, Any], expected: str) -> None:
    """The message names table, column and schema, and what was expected."""
    family = _FAMILIES["episodes"]
    with pytest.raises(HaltError) as failure:
        check_table(_with(family, field, **changes), _columns("episodes"))
    message = str(failure.value)
    assert message.startswith(f"table episodes: column {field} ")
    assert f"expected in {family.schema.file.name}" in message
    assert expected in message


def test_a_field_without_a_column_halts() -> None:
    """It would be lost."""
    columns = _columns("episodes")
    del columns["title"]
    with pytest.raises(HaltError, match=r"table episodes: no column for field title of episodes\.v1\.avsc"):
        check_table(_FAMILIES["episodes"], columns)


def test_a_column_without_a_field_halts() -> None:
    """It would be filled with ClickHouse's default without being noticed."""
    with pytest.raises(HaltError, match=r"column added: expected a field in episodes\.v1\.avsc"):
        check_table(_FAMILIES["episodes"], {**_columns("episodes"), "added": "String"})


@pytest.mark.parametrize("column_type", ["Nullable(String)", "Array(UUID)", "DateTime64(6, 'UTC')", "DateTime64(3)"])
def test_a_type_of_column_that_no_field_can_have_halts(column_type: str) -> None:
    """Nothing is guessed about types that the specification doesn't use."""
    with pytest.raises(HaltError, match="no Avro type is known"):
        check_table(_FAMILIES["episodes"], {**_columns("episodes"), "title": column_type})
