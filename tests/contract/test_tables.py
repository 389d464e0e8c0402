"""Check of a table against its family's newest schema. tests/integration/test_contract.py checks the real tables."""

import re
from dataclasses import replace
from typing import Any

import pytest

from pipeline.catalog import Family, load_catalog
from pipeline.clickhouse.contract import check_table
from pipeline.config import load_settings
from pipeline.errors import HaltError

_FAMILIES = {family.name: family for family in load_catalog(load_settings()).families}
_COLUMNS = {
    "ts": "DateTime64(3, 'UTC')",
    "run_id": "UUID",
    "series": "LowCardinality(String)",
    "episode_num": "UInt16",
    "title": "String",
    "confidence_score": "Float32",
    "correlation_strength": "Float32",
    "tokens_total": "UInt32",
    "cost_total": "Decimal(12, 6)",
    "status": "LowCardinality(String)",
    "file_path": "String",
    "commit_sha": "FixedString(40)",
}
"""Columns of `episodes`, with types as ClickHouse writes them."""


def _with(family: Family, name: str, **changes: Any) -> Family:
    """Return the family with one field of its newest schema changed."""
    fields = tuple(replace(field, **changes) if field.name == name else field for field in family.schema.fields)
    return replace(family, schemas=(replace(family.schema, fields=fields),))


@pytest.mark.parametrize("name", _FAMILIES)
def test_the_key_is_a_required_field(name: str) -> None:
    """A key with a default would put unrelated records into one partition."""
    family = _FAMILIES[name]
    assert family.schema.by_name[family.key].required


def test_the_specified_table_fits() -> None:
    """Every column has a field, every field has a column, and every valid value fits."""
    check_table(_FAMILIES["episodes"], _COLUMNS)


@pytest.mark.parametrize(
    ("field", "changes", "expected"),
    [
        pytest.param("ts", {"logical_type": None}, "timestamp-millis", id="a plain long for a time"),
        pytest.param("ts", {"maximum": 10**14}, "timestamp-millis from 1900 to 2299", id="a time beyond DateTime64"),
        pytest.param("run_id", {"logical_type": None}, "uuid", id="any string for a UUID"),
        pytest.param("series", {"pattern": None}, "values or a pattern", id="free text for a dictionary"),
        pytest.param("episode_num", {"maximum": 65536}, "from 0 to 65535", id="beyond UInt16"),
        pytest.param("episode_num", {"minimum": -1}, "from 0 to 65535", id="a negative number for UInt16"),
        pytest.param("tokens_total", {"maximum": None}, "from 0 to 4294967295", id="no bound for UInt32"),
        pytest.param("title", {"type": "double"}, "string", id="a number for text"),
        pytest.param("title", {"null": 0}, "never null", id="null for text"),
        pytest.param("confidence_score", {"type": "double"}, "float", id="a double for Float32"),
        pytest.param("cost_total", {"precision": 13}, "precision 12 and scale 6", id="one digit too many"),
        pytest.param("cost_total", {"scale": 2}, "precision 12 and scale 6", id="cents for millionths"),
        pytest.param("commit_sha", {"pattern": re.compile("^[0-9a-f]{7}$")}, "{40}", id="a short commit"),
        pytest.param("commit_sha", {"pattern": re.compile("[0-9a-f]{40}|")}, "{40}", id="an optional commit"),
    ],
)
def test_a_field_that_its_column_cant_hold_halts(field: str, changes: dict[str, Any], expected: str) -> None:
    """The error gives table, column, schema and the expected field."""
    family = _FAMILIES["episodes"]
    with pytest.raises(HaltError) as failure:
        check_table(_with(family, field, **changes), _COLUMNS)
    message = str(failure.value)
    assert message.startswith(f"table episodes: column {field} ")
    assert f"expected in {family.schema.file.name}" in message
    assert expected in message


def test_a_field_without_a_column_halts() -> None:
    """Values of a field without a column would be lost."""
    columns = {name: column_type for name, column_type in _COLUMNS.items() if name != "title"}
    with pytest.raises(HaltError, match=r"table episodes: no column for field title of episodes\.v1\.avsc"):
        check_table(_FAMILIES["episodes"], columns)


def test_a_column_without_a_field_halts() -> None:
    """ClickHouse would silently fill the column with its default."""
    with pytest.raises(HaltError, match=r"column added: expected a field in episodes\.v1\.avsc"):
        check_table(_FAMILIES["episodes"], {**_COLUMNS, "added": "String"})


@pytest.mark.parametrize("column_type", ["Int128", "Tuple(String)", "DateTime64(9, 'UTC')", "DateTime64(3)", "JSON"])
def test_an_unknown_column_type_halts(column_type: str) -> None:
    """The check knows only the column types of docs/types.md."""
    with pytest.raises(HaltError, match="no Avro type is known"):
        check_table(_FAMILIES["episodes"], {**_COLUMNS, "title": column_type})
