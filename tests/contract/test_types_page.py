"""docs/types.md says which column each Avro type gets."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.clickhouse.column_types import column_type, unfit
from pipeline.schema.fields import Field, read_field

_PAGE = (Path(__file__).parents[2] / "docs/types.md").read_text(encoding="utf-8")
_ROWS = [tuple(cell.strip() for cell in row.split("|")[1:-1]) for row in re.findall(r"^\| .*\|$", _PAGE, re.MULTILINE)]
_COLUMNS = {cells[0]: cells[1] for cells in _ROWS if len(cells) == 5 and cells[0] != "Avro type"}

_TEXT = {"type": "string", "privacy": "text"}
_DECLARED: dict[str, dict[str, Any]] = {
    "`boolean`": {"type": "boolean"},
    "`int`, `long`": {"type": "long", "min": 0, "max": 300},
    "`float`": {"type": "float"},
    "`double`": {"type": "double"},
    "`string`": _TEXT,
    "`string` with `one_of`": {"type": "string", "one_of": ["a"]},
    '`string` with a pattern `^[…]{n}$` and `"privacy": "keep"`': {
        "type": "string",
        "pattern": "^[a-f]{7}$",
        "privacy": "keep",
    },
    "`string`, `uuid`": {"type": {"type": "string", "logicalType": "uuid"}},
    "`enum`": {"type": {"type": "enum", "name": "E", "symbols": ["a"]}},
    "`bytes`": {"type": "bytes", "privacy": "keep"},
    "`fixed` of n bytes, at most 64": {"type": {"type": "fixed", "name": "F", "size": 7}, "privacy": "keep"},
    "`bytes` or `fixed`, `decimal(p, s)`, p up to 18": {
        "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    },
    "the same, p from 19 to 38": {"type": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 2}},
    "`long`, `timestamp-millis`": {"type": {"type": "long", "logicalType": "timestamp-millis"}, "min": 0, "max": 1},
    "`long`, `timestamp-micros`": {"type": {"type": "long", "logicalType": "timestamp-micros"}, "min": 0, "max": 1},
    "`int`, `date`": {"type": {"type": "int", "logicalType": "date"}, "min": 0, "max": 1},
    "`int`, `time-millis`": {"type": {"type": "int", "logicalType": "time-millis"}},
    "`long`, `time-micros`": {"type": {"type": "long", "logicalType": "time-micros"}},
    '`["null", T]`, `[T, "null"]`, T a type above': {**_TEXT, "type": ["null", "string"]},
    "`array` of T": {**_TEXT, "type": {"type": "array", "items": "string"}},
    "`map` of T": {**_TEXT, "type": {"type": "map", "values": "string"}, "key_pattern": "a"},
}


def _field(declared: dict[str, Any]) -> Field:
    return read_field("any.v1.avsc", 0, {"name": "any", **declared})


def test_the_page_has_every_type() -> None:
    """Each row of the table is tried here."""
    assert list(_COLUMNS) == list(_DECLARED)


@pytest.mark.parametrize("row", _DECLARED)
def test_a_new_field_gets_the_documented_column(row: str) -> None:
    """The page names the column, and the column fits; numbers stand for n, p and s, and a type for T."""
    field = _field(_DECLARED[row])
    column = column_type(field)
    assert unfit(field, column) is None
    (documented, *_) = re.findall(r"`([^`]+)`", _COLUMNS[row])
    if row == "`int`, `long`":
        assert column == "UInt16"
        return
    pattern = (
        re.escape(documented).replace("…", ".+").replace("\\(n\\)", r"\(\d+\)").replace("\\(p,\\ s\\)", r"\(\d+, \d+\)")
    )
    assert re.fullmatch(pattern, column), (documented, column)
