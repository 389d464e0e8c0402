"""Reads every version of every family's Avro schema, usually from schemas/avro."""

import json
import re
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import fastavro
import fastavro.schema

from pipeline.errors import ConfigError
from pipeline.schema.defaults import encoded_default
from pipeline.schema.fields import Field, check_keys, read_field
from pipeline.schema.fingerprints import fingerprints
from pipeline.schema.types import TypeReader

FILE_NAME = re.compile(r"^(?P<family>[a-z][a-z0-9_]*)\.v(?P<version>[1-9][0-9]*)\.avsc$")
VERSION_FIELD = "schema_version"
"""Field with the version of the schema that a record was written with; a producer may leave it out."""
_RECORD_KEYS = ("type", "name", "namespace", "doc", "aliases", "fields")
_FULL_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


@dataclass(frozen=True)
class Schema:
    """One version of a family's schema."""

    family: str
    version: int
    file: Path
    raw: Mapping[str, Any]
    """The .avsc as parsed JSON."""
    parsed: Any
    """The schema as fastavro parsed it."""
    fields: tuple[Field, ...]
    fingerprints: Mapping[bytes, Sequence[str]]
    """Each fingerprint under which a library frames records of this schema, with the names of the libraries."""

    @cached_property
    def fingerprint(self) -> bytes:
        """CRC-64-AVRO of the parsing canonical form, as single-object framing carries it: 8 bytes, little-endian."""
        return next(iter(self.fingerprints))

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """Name to field."""
        return {field.name: field for field in self.fields}


def by_fingerprint(schemas: Sequence[Schema]) -> dict[bytes, Schema]:
    """Return the version that each fingerprint stands for: the canonical fingerprints first, then those of libraries.

    Args:
        schemas: versions of a family, oldest first. The newest wins where fingerprints are equal.
    """
    known = {schema.fingerprint: schema for schema in schemas}
    for schema in reversed(schemas):
        for fingerprint in schema.fingerprints:
            known.setdefault(fingerprint, schema)
    return known


def load_schemas(directory: Path, own: Path | None = None) -> dict[str, tuple[Schema, ...]]:
    """Read all schemas: family name to its versions, oldest first.

    Args:
        directory: the schemas.
        own: directory of schemas of one's own; it may have more versions of a family of the other directory.

    Raises:
        ConfigError: one line that names file, key and expected value.
    """
    families: dict[str, list[Schema]] = {}
    for path in [*_files(directory), *(_files(own) if own else ())]:
        schema = load_schema(path)
        families.setdefault(schema.family, []).append(schema)
    for family, versions in families.items():
        versions.sort(key=lambda schema: schema.version)
        for one, next_one in pairwise(versions):
            if one.version == next_one.version:
                raise ConfigError(f"{next_one.file}: expected another version, because {one.file} has it")
        missing = set(range(1, versions[-1].version)) - {schema.version for schema in versions}
        if missing:
            raise ConfigError(f"{directory}/{family}.v{min(missing)}.avsc: missing; every version is kept")
    return {family: tuple(versions) for family, versions in families.items()}


def _files(directory: Path) -> list[Path]:
    try:
        files = sorted(directory.glob("*.avsc"))
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}; expected a directory of schemas") from None
    if not files:
        raise ConfigError(f"{directory}: no schemas; expected files named <family>.v<N>.avsc")
    return files


def load_schema(path: Path) -> Schema:
    """Read one .avsc file.

    Raises:
        ConfigError: not readable, not JSON, not a flat Avro record, or with a wrong or unknown attribute.
    """
    match = FILE_NAME.match(path.name)
    if not match:
        raise ConfigError(f"{path}: expected a name of the form <family>.v<N>.avsc")
    raw = _json(path)
    fields = _record(path, raw)
    try:
        parsed = fastavro.parse_schema(raw, _write_hint=False)
    except (fastavro.schema.SchemaParseException, fastavro.schema.UnknownType) as error:
        raise ConfigError(f"{path}: not an Avro schema: {' '.join(str(error).split())}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not an Avro schema: missing or misplaced {error}") from None
    _check_defaults(path, fields)
    return Schema(match["family"], int(match["version"]), path, raw, parsed, fields, fingerprints(raw, fields))


def _check_defaults(path: Path, fields: Sequence[Field]) -> None:
    """Refuse a default that isn't of its field's type; `schemas check` compares it with the bounds."""
    for field in fields:
        if not field.required:
            try:
                encoded_default(field)
            except (ValueError, TypeError, AttributeError, OverflowError, struct.error) as error:
                raise ConfigError(
                    f"{path}: {field.name}.default: expected a value of {field.type}, got {field.default!r}"
                ) from error


def _record(path: Path, raw: Any) -> tuple[Field, ...]:
    """Read the fields of a schema that must be a record."""
    if not isinstance(raw, dict) or raw.get("type") != "record":
        raise ConfigError(f"{path}: type: expected a record with fields")
    check_keys(f"{path}: record", raw, _RECORD_KEYS)
    for key in ("name", "namespace"):
        name = raw.get(key)
        if (key in raw or key == "name") and not (isinstance(name, str) and _FULL_NAME.fullmatch(name)):
            raise ConfigError(f"{path}: {key}: expected letters, digits and _, got {name!r}")
    declared = raw.get("fields")
    if not isinstance(declared, list) or not declared:
        raise ConfigError(f"{path}: fields: expected a list of at least one field, got {declared!r}")
    types = TypeReader()
    fields = tuple(read_field(str(path), position, field, types) for position, field in enumerate(declared))
    for name, count in Counter(field.name for field in fields).items():
        if count > 1:
            raise ConfigError(f"{path}: {name}: expected one field of that name, got {count}")
    return fields


def _json(path: Path) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                raise ConfigError(f"{path}: {key}: expected once in an object, got {count} times")
        return dict(pairs)

    def constant(name: str) -> None:
        raise ConfigError(f"{path}: not JSON: {name}")

    try:
        # json and not orjson, which silently keeps the last of two equal keys.
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique, parse_constant=constant)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error.reason}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from None
