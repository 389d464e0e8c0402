"""Personal data in fields that may be null, in lists and in the values of maps."""

from typing import Any

import pytest
from support import oracle
from support.avro_cases import encode, make_family, record

from pipeline.decode.decoder import Decoder
from pipeline.errors import ConfigError, Reason
from pipeline.privacy.hashing import Hasher
from pipeline.privacy.sanitise import Sanitiser
from pipeline.schema.compatibility import problems
from pipeline.schema.framing import frame_single_object

_MAIL = "jo.public@example.org"
_JSON = {"metadata": {"keys": {"kind": ["open"]}}}
_SCHEMA = record(
    [
        {"name": "note", "type": ["null", "string"], "privacy": "text"},
        {"name": "notes", "type": {"type": "array", "items": "string"}, "privacy": "text"},
        {"name": "named", "type": {"type": "map", "values": "string"}, "privacy": "text", "key_pattern": "[a-z]+"},
        {"name": "more", "type": ["null", "string"], "privacy": _JSON},
    ]
)


def _decoded(*events: dict[str, Any]) -> Any:
    family = make_family([_SCHEMA])
    values: list[bytes | None] = [
        frame_single_object(family.schema.fingerprint, encode(_SCHEMA, each)) for each in events
    ]
    return Decoder(family, sanitise=Sanitiser(family.schema, Hasher(b"key"))).decode(values)


def test_no_personal_text_is_left_in_any_of_them() -> None:
    """Each value is treated as a plain field's is; null, and other items, stay as they are."""
    rows = _decoded(
        {"note": _MAIL, "notes": ["fine", _MAIL], "named": {"a": _MAIL, "b": "fine"}, "more": None},
        {"note": None, "notes": [], "named": {}, "more": '{"kind": "open", "mail": "jo.public@example.org"}'},
    )
    first, second = oracle.rows_of(rows)
    assert b"example.org" not in repr([first, second]).encode()
    assert (first["notes"][0], first["named"][b"b"], first["more"]) == (b"fine", b"fine", None)
    assert (second["note"], second["notes"], second["named"]) == (None, [], {})
    assert b"open" in second["more"]


def test_a_value_that_cant_be_treated_rejects_its_own_record() -> None:
    """The row that has it, not the one with its place among the values."""
    good: dict[str, Any] = {"note": None, "notes": [], "named": {}, "more": None}
    rows = _decoded(good, {**good, "more": "no JSON"}, {**good, "more": "{}"})
    assert [(each.position, each.reason) for each in rows.rejections] == [(1, Reason.INVALID_JSON)]
    assert rows.positions.tolist() == [0, 2]


@pytest.mark.parametrize(
    "declared",
    [
        pytest.param({"type": "bytes"}, id="bytes"),
        pytest.param({"type": {"type": "fixed", "name": "F", "size": 3}}, id="fixed"),
        pytest.param({"type": ["null", "string"]}, id="text or null"),
        pytest.param({"type": {"type": "array", "items": "string"}}, id="texts"),
    ],
)
def test_an_undeclared_open_form_is_refused(declared: dict[str, Any]) -> None:
    """By the check of schemas, and by the worker."""
    schema = make_family([record([{"name": "open", **declared}])]).schema
    assert any("open.privacy: expected" in str(problem) for problem in problems({"any": (schema,)}))
    with pytest.raises(ConfigError, match=r"open\.privacy"):
        Sanitiser(schema, Hasher(b"key"))
