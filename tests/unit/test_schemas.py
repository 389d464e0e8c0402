"""Loading schemas: fingerprints follow the Avro specification, and each mistake gives one clear line."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from pipeline.cli.schemas import schemas as command
from pipeline.config import env_name
from pipeline.errors import ConfigError
from pipeline.schema.fingerprints import fingerprint
from pipeline.schema.versions import load_schema, load_schemas

_ID = {"name": "id", "type": "string"}
_RECORD = {"type": "record", "name": "Thing", "namespace": "chimera", "fields": [_ID]}
_MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 6}

# From Apache Avro's own test data, share/test/data/schema-tests.txt, where they are signed 64-bit numbers.
_PUBLISHED: list[tuple[Any, int]] = [
    ("null", 7195948357588979594),
    ("boolean", -6970731678124411036),
    ("int", 8247732601305521295),
    ("long", -3434872931120570953),
    ("float", 5583340709985441680),
    ("double", -8181574048448539266),
    ("bytes", 5746618253357095269),
    ("string", -8142146995180207161),
    ({"type": "string"}, -8142146995180207161),
    ({"fields": [], "type": "record", "name": "foo", "namespace": "x.y"}, 5916914534497305771),
    ({"fields": [], "type": "record", "name": "a.b.foo", "namespace": "x.y"}, -4616218487480524110),
    ({"fields": [], "type": "record", "name": "foo", "doc": "Useful info"}, -4824392279771201922),
    (
        {"fields": [{"type": {"type": "boolean"}, "name": "f1"}], "type": "record", "name": "foo"},
        7843277075252814651,
    ),
    (
        {
            "fields": [
                {"type": "boolean", "aliases": [], "name": "f1", "default": True},
                {"order": "descending", "name": "f2", "doc": "Hello", "type": "int"},
            ],
            "type": "record",
            "name": "foo",
        },
        -4860222112080293046,
    ),
]


@pytest.mark.parametrize(("schema", "published"), _PUBLISHED, ids=lambda value: re.sub(r"\s", "", str(value))[:60])
def test_fingerprints_equal_those_that_avro_publishes(schema: Any, published: int) -> None:
    """Fingerprints equal Avro's test data, in little-endian order as single-object encoding carries them."""
    assert fingerprint(schema) == published.to_bytes(8, "little", signed=True)


def test_the_fingerprint_of_int_frames_as_in_avros_other_implementations() -> None:
    """The header for a single `int`, marker included, equals that of Avro for Ruby."""
    assert (b"\xc3\x01" + fingerprint("int")).hex(" ") == "c3 01 8f 5c 39 3f 1a d5 75 72"


def test_bounds_and_documentation_leave_the_fingerprint_alone(tmp_path: Path) -> None:
    """A version that only declares other bounds reads the frames of the version before."""
    plain = _write(tmp_path, "thing.v1.avsc", _with_field({"name": "n", "type": "long"}))
    bounded = _write(
        tmp_path, "thing.v2.avsc", _with_field({"name": "n", "type": "long", "min": 0, "max": 9, "doc": "Digit."})
    )
    assert load_schema(plain).fingerprint == load_schema(bounded).fingerprint


def _with_field(field: dict[str, Any]) -> dict[str, Any]:
    return {**_RECORD, "fields": [field]}


def _write(directory: Path, name: str, content: Any) -> Path:
    file = directory / name
    file.write_bytes(content if isinstance(content, bytes) else orjson.dumps(content))
    return file


@pytest.mark.parametrize(
    ("content", "key", "expected"),
    [
        pytest.param(b"{", "", "not JSON", id="no JSON"),
        pytest.param(b'{"type": "record", "name": "\xff"}', "", "not UTF-8", id="no UTF-8"),
        pytest.param(b'{"type": "record", "type": "record"}', "type", "once in an object, got 2", id="a key twice"),
        pytest.param(b'{"type": "record", "min": NaN}', "", "not JSON: NaN", id="no number"),
        pytest.param("strin", "type", "a record", id="no Avro type"),
        pytest.param({"type": "record", "name": "Thing"}, "fields", "a list", id="no fields"),
        pytest.param({**_RECORD, "fields": None}, "fields", "a list", id="null for fields"),
        pytest.param({**_RECORD, "fields": []}, "fields", "at least one field, got []", id="empty fields"),
        pytest.param({**_RECORD, "fields": ["id"]}, "fields[0]", "an object", id="a field that is text"),
        pytest.param({**_RECORD, "fields": [{"type": "int"}]}, "fields[0].name", "letters, digits", id="no name"),
        pytest.param({**_RECORD, "fields": [{**_ID, "name": "a b"}]}, "fields[0].name", "got 'a b'", id="a blank"),
        pytest.param({**_RECORD, "name": "a-b"}, "name", "letters, digits and _, got 'a-b'", id="a dash"),
        pytest.param({**_RECORD, "namespace": 7}, "namespace", "letters, digits and _, got 7", id="a number"),
        pytest.param({**_RECORD, "field": []}, "record.field", "expected type, name", id="an unknown attribute"),
        pytest.param({"type": "enum", "name": "E", "symbols": ["A"]}, "type", "a record", id="an enum"),
        pytest.param({**_RECORD, "fields": [_ID, _ID]}, "id", "one field of that name", id="a field twice"),
    ],
)
def test_a_wrong_record_is_refused_with_one_line(tmp_path: Path, content: Any, key: str, expected: str) -> None:
    """The line names the file, the key if there is one, and the expected value."""
    _assert_refused(_write(tmp_path, "thing.v1.avsc", content), key, expected)


@pytest.mark.parametrize(
    ("avro_type", "attributes", "key", "expected"),
    [
        pytest.param(
            "int",
            {"maximum": 9},
            ".maximum",
            "unknown key, perhaps max is meant; expected name, type",
            id="another word for max",
        ),
        pytest.param(
            "int", {"mim": 9}, ".mim", "unknown key, perhaps min is meant; expected name, type", id="min misspelt"
        ),
        pytest.param("long", {"logicalType": "timestamp-millis"}, ".logicalType", "unknown key", id="beside its type"),
        pytest.param({"type": "int", "max": 9}, {}, ".type.max", "expected type, logicalType", id="inside the type"),
        pytest.param({"type": "string", "precision": 3}, {}, ".type.precision", "unknown key", id="digits of text"),
        pytest.param({"type": "string", "logicalType": ["x"]}, {}, ".logicalType", "uuid on string", id="a list"),
        pytest.param({"type": "string", "logicalType": None}, {}, ".logicalType", "uuid on string", id="null type"),
        pytest.param({"type": "array"}, {}, ".items", "one of boolean", id="an array of nothing"),
        pytest.param(_RECORD, {}, ".type", "no record in a record", id="a record in it"),
        pytest.param({"type": {"type": "string"}}, {}, ".type", "one of boolean", id="a type in a type"),
        pytest.param(None, {}, ".type", "one of boolean", id="no type"),
        pytest.param({**_MONEY, "precision": "9"}, {}, ".precision", "1 to 38", id="digits as text"),
        pytest.param({**_MONEY, "scale": 10}, {}, ".scale", "0 to 9", id="more digits after the point than there are"),
        pytest.param("string", {"one_of": []}, ".one_of", "a list of strings", id="no one_of"),
        pytest.param(
            "string", {"one_of": ["a"], "pattern": "a"}, ".pattern", "none beside one_of", id="one_of, pattern"
        ),
        pytest.param(
            "string", {"one_of": ["a"], "values": ["a"]}, ".values", "none beside one_of", id="one_of, values"
        ),
        pytest.param("string", {"values": None}, ".values", "a list of strings", id="null for values"),
        pytest.param("string", {"pattern": None}, ".pattern", "regular expression", id="null for a pattern"),
        pytest.param("string", {"max_length": None}, ".max_length", "a whole number", id="null for a length"),
        pytest.param(
            "string", {"values": ["a"], "pattern": "a"}, ".pattern", "none beside values", id="values, pattern"
        ),
        pytest.param(["int", "string"], {}, ".type", "null", id="a union of two scalars"),
        pytest.param(["null", "int"], {"default": 1}, ".default", "expected null", id="a default of another branch"),
        pytest.param(["null", {"type": "array", "items": "int"}], {}, ".type", "one of boolean", id="a list or null"),
        pytest.param({"type": "array", "items": ["null", "int"]}, {}, ".items", "one of boolean", id="nulls in a list"),
        pytest.param({"type": "map", "values": "int"}, {}, ".key_pattern", "free text is no key", id="a map's keys"),
        pytest.param({"type": "enum", "name": "E", "symbols": ["a", "a"]}, {}, ".symbols", "different", id="symbols"),
        pytest.param("bytes", {"privacy": "text"}, ".privacy", '"keep" on bytes', id="treated bytes"),
        pytest.param(
            {"type": "int", "logicalType": "timestamp-micros"},
            {},
            ".logicalType",
            "timestamp-micros on long",
            id="microseconds in 32 bits",
        ),
        pytest.param({**_MONEY, "precision": 39}, {}, ".precision", "1 to 38", id="a decimal beyond 128 bits"),
        pytest.param("string", {"min": 1}, ".min", "a number", id="min of a string"),
        pytest.param("int", {"min": "1"}, ".min", "a number", id="min as text"),
        pytest.param("int", {"min": 2, "max": 1}, ".min", "at most", id="min above max"),
        pytest.param(_MONEY, {"max": 1.5}, ".max", "a decimal number as a string", id="money as a float"),
        pytest.param(_MONEY, {"max": "much"}, ".max", "a decimal number as a string", id="money in words"),
        pytest.param(_MONEY, {"max": "NaN"}, ".max", "a decimal number as a string", id="money that is none"),
        pytest.param("int", {"pattern": "x"}, ".pattern", "plain string", id="pattern of a number"),
        pytest.param("string", {"pattern": "["}, ".pattern", "regular expression", id="no regular expression"),
        pytest.param("string", {"values": []}, ".values", "a list of strings", id="no values"),
        pytest.param("string", {"max_length": 0}, ".max_length", "a whole number", id="no length"),
        pytest.param("int", {"default": "x"}, "", "not an Avro schema", id="a default of another type"),
    ],
)
def test_a_wrong_field_is_refused_with_one_line(
    tmp_path: Path, avro_type: Any, attributes: dict[str, Any], key: str, expected: str
) -> None:
    """The line names the file, the field's attribute and the expected value."""
    content = _with_field({"name": "n", "type": avro_type, **attributes})
    _assert_refused(_write(tmp_path, "thing.v1.avsc", content), key and f"n{key}", expected)


def _assert_refused(file: Path, key: str, expected: str) -> None:
    with pytest.raises(ConfigError) as failure:
        load_schemas(file.parent)
    message = str(failure.value)
    assert message.startswith(f"{file}: {key}")
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["thing.avsc", "thing.v0.avsc", "Thing.v1.avsc", "thing.v1.1.avsc"])
def test_a_file_name_without_family_and_version_is_an_error(tmp_path: Path, name: str) -> None:
    """The file isn't skipped silently."""
    file = _write(tmp_path, name, _RECORD)
    with pytest.raises(ConfigError, match=f"{re.escape(str(file))}: expected a name of the form"):
        load_schemas(tmp_path)


def test_avros_own_attributes_are_allowed(tmp_path: Path) -> None:
    """Avro defines documentation, aliases and sort order; they are accepted."""
    own = {"doc": "A thing.", "aliases": ["it"]}
    field = {**_ID, **own, "order": "ignore", "default": ""}
    schema = load_schema(_write(tmp_path, "thing.v1.avsc", {**_with_field(field), **own}))
    assert [found.name for found in schema.fields] == ["id"]


def test_a_missing_version_is_an_error(tmp_path: Path) -> None:
    """The log may still hold records of each version."""
    for version in (1, 3):
        _write(tmp_path, f"thing.v{version}.avsc", _RECORD)
    with pytest.raises(ConfigError, match=r"thing\.v2\.avsc: missing; every version is kept"):
        load_schemas(tmp_path)


def test_versions_are_numbers(tmp_path: Path) -> None:
    """Version 10 comes after version 9."""
    for version in range(1, 11):
        _write(tmp_path, f"thing.v{version}.avsc", _RECORD)
    assert [schema.version for schema in load_schemas(tmp_path)["thing"]] == list(range(1, 11))


def test_a_directory_without_schemas_is_an_error(tmp_path: Path) -> None:
    """A mistyped path isn't taken for an empty catalog."""
    with pytest.raises(ConfigError, match="no schemas"):
        load_schemas(tmp_path / "nowhere")


def test_a_wrong_schema_ends_the_command_with_78(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """78 is the exit code of a wrong configuration."""
    _write(tmp_path, "thing.v1.avsc", b"{")
    monkeypatch.setenv(env_name("schemas", "directory"), str(tmp_path))
    result = CliRunner().invoke(command, ["check"])
    assert isinstance(result.exception, ConfigError)
    assert result.exception.exit_code == 78
