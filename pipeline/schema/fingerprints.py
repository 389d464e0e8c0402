"""Fingerprints of one schema, as different Avro libraries compute them.

Avro defines one fingerprint, of the canonical form. Some libraries leave more in that form: logical types, the object
around a primitive type, or any attribute that is named like one of Avro's own. The encoded fields are equal, so the
worker accepts a frame with any of these fingerprints. tests/fixtures/producers has bytes that each library made.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import fastavro

from pipeline.schema.fields import FORMER_ONE_OF, PRIMITIVES, Field

CANONICAL = "Avro: Java, JavaScript, fastavro"


class _Form(NamedTuple):
    """A canonical form that isn't Avro's."""

    library: str
    written: Callable[[Field], str]
    """Function that returns the JSON of a field's type with a logical type."""
    keeps: Sequence[str]
    """Attributes of a field that the form keeps, in their order."""


def fingerprint(schema: Any) -> bytes:
    """CRC-64-AVRO fingerprint of a schema, 8 bytes little-endian (Avro specification, "Single-object encoding")."""
    return _crc64(fastavro.schema.to_parsing_canonical_form(schema))


def fingerprints(raw: Mapping[str, Any], fields: Sequence[Field]) -> dict[bytes, tuple[str, ...]]:
    """Return each fingerprint of a schema, with the names of the libraries that compute it; Avro's own is first.

    Args:
        raw: the .avsc as parsed JSON.
        fields: its fields.
    """
    found: dict[bytes, list[str]] = {fingerprint(raw): [CANONICAL]}
    if any(field.nullable or field.type not in PRIMITIVES for field in fields):
        return {octets: tuple(names) for octets, names in found.items()}  # the other forms of such types aren't known
    for form in _FORMS:
        for former in (False, True) if FORMER_ONE_OF in form.keeps else (False,):
            library = f"{form.library}, with values" if former else form.library
            names = found.setdefault(_crc64(_text(raw, fields, form, former=former)), [])
            if form.library not in names:  # without a closed set both are equal
                names.append(library)
    return {octets: tuple(names) for octets, names in found.items()}


@lru_cache(maxsize=1024)  # fastavro computes it in Python: a tenth of a second for the project's schemas
def _crc64(text: str) -> bytes:
    # fastavro's hex digits are the 64-bit number's little-endian bytes, as in the frame.
    return bytes.fromhex(fastavro.schema.fingerprint(text, "CRC-64-AVRO"))


def _text(raw: Mapping[str, Any], fields: Sequence[Field], form: _Form, *, former: bool) -> str:
    name, space = raw["name"], raw.get("namespace")
    full_name = name if "." in name or not space else f"{space}.{name}"
    members = []
    for field, declared in zip(fields, raw["fields"], strict=True):
        written = form.written(field) if field.logical_type else _json(field.type)
        attributes = declared | {FORMER_ONE_OF: field.values if former else None}
        kept = "".join(f",{_json(key)}:{_json(value)}" for key in form.keeps if (value := attributes.get(key)))
        members.append(f'{{"name":{_json(field.name)},"type":{written}{kept}}}')
    return f'{{"name":"{full_name}","type":"record","fields":[{",".join(members)}]}}'


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _object(field: Field) -> str:
    return _json({"type": field.type})


def _sized_object(field: Field) -> str:
    sizes = {"precision": field.precision, "scale": field.scale} if field.logical_type == "decimal" else {}
    return _json({"type": field.type, **sizes})


def _logical_object(field: Field) -> str:
    sizes = {"precision": field.precision} if field.logical_type == "decimal" else {}
    scale = {"scale": field.scale} if field.scale else {}
    return _json({"type": field.type, "logicalType": field.logical_type, **sizes, **scale})


def _goavro(field: Field) -> str:
    match field.logical_type:
        case "uuid":
            return _json(field.type)
        case "decimal":
            return _json({"name": "bytes.decimal", "type": field.type})
    return _object(field)


_FORMS = (
    _Form("Go: hamba/avro", _logical_object, ()),
    _Form("Go: goavro", _goavro, (FORMER_ONE_OF,)),
    _Form("Python: avro", _object, (FORMER_ONE_OF,)),
    _Form("Rust: apache-avro", _sized_object, (FORMER_ONE_OF, "order")),
)
