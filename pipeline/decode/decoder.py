"""Decodes a micro-batch: the values of its records become columns of valid rows, or rejections with a reason.

Records are grouped by their writer schema, read field by field, resolved to the newest version and checked against its
declarations. A record's verdict and row depend only on its value, its timestamp and the schemas.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import orjson

from pipeline.catalog import Family
from pipeline.columns import Column, Ints, Mask, Rejection, Rows, Spans, Verdicts, merge
from pipeline.columns.core import compiled
from pipeline.config import ValidationSettings
from pipeline.decode.composed import promoted, validate_field
from pipeline.decode.cursor import Cursor
from pipeline.decode.frames import Frames
from pipeline.decode.plan import CompiledDecoding, CompiledPlan
from pipeline.decode.raw import Raw
from pipeline.decode.reference import Reference
from pipeline.decode.strict_walk import MalformedError
from pipeline.decode.times import check_times
from pipeline.decode.unknown import UnknownSchemas
from pipeline.errors import Reason
from pipeline.schema.defaults import encoded_default
from pipeline.schema.fields import Field
from pipeline.schema.framing import CONFLUENT_HEADER_BYTES, SINGLE_OBJECT_HEADER_BYTES, guessed_form
from pipeline.schema.resolution import Resolution, resolve
from pipeline.schema.versions import VERSION_FIELD, by_fingerprint
from pipeline.schema.writer_schema import UnresolvableError, check_writer_schema

_MAX_WRITER_SCHEMAS = 1000
_SLICE_ROWS = 16384
Sanitise = Callable[[Rows], Rows]
"""Function that reduces valid rows to the values that may be stored."""


class SchemaSource(Protocol):
    """Source of the schemas that Confluent's frames refer to by id."""

    def schema(self, schema_id: int) -> dict[str, Any]:
        """Return the Avro schema with this id, as parsed JSON.

        Raises:
            LookupError: no schema has this id.
            UnresolvableError: the schema can't be used to read records.
            UnavailableError: the registry doesn't answer; the call may be repeated.
        """


@dataclass(frozen=True, slots=True)
class _WriterSchema:
    """One writer schema, and the way to read its records."""

    resolution: Resolution
    reference: Reference | None
    """Reads records one by one if the schema isn't flat; None if the columnar path reads them."""
    plan: CompiledPlan | None = None
    """Plan of the compiled core; None if it can't read these records."""
    version: int | None = None
    """Version of the family's schema; None for a schema that isn't one of them."""


class _Decodings:
    """Decodings of one micro-batch by the compiled core, one for each writer schema.

    Args:
        rows: number of records of the micro-batch.
    """

    def __init__(self, rows: int) -> None:
        self._rows, self._core = rows, compiled()
        self._begun: dict[int, CompiledDecoding] = {}

    def of(self, writer: _WriterSchema) -> CompiledDecoding | None:
        """Return the decoding of a writer schema; None if numpy has to read its records."""
        if self._core is None or writer.plan is None:
            return None
        if id(writer.plan) not in self._begun:
            self._begun[id(writer.plan)] = CompiledDecoding(writer.plan, self._core, self._rows)
        return self._begun[id(writer.plan)]


class Decoder:
    """Decodes the records of one family.

    Args:
        family: the family; records become rows of its newest schema.
        registry: source of schemas for Confluent-framed records; without it such records are rejected.
        validation: limits on the distance between an event's time and its record's timestamp.
        sanitise: reduces valid rows to the values that may be stored; without it rows hold the written values.
    """

    def __init__(
        self,
        family: Family,
        registry: SchemaSource | None = None,
        validation: ValidationSettings | None = None,
        *,
        sanitise: Sanitise | None = None,
    ) -> None:
        self._newest = family.schema
        self._most_bytes = family.topic.max_message_bytes
        self._registry = registry
        self._sanitise = sanitise
        self._validation = validation or ValidationSettings()
        self._layouts = {orjson.dumps(check_writer_schema(schema.raw)): schema.version for schema in family.schemas}
        writers = {schema.version: self._writer(schema.raw) for schema in family.schemas}
        self._versions = {known: writers[schema.version] for known, schema in by_fingerprint(family.schemas).items()}
        self._unknown = UnknownSchemas(family.schemas, registry=registry is not None)
        self._by_id: dict[int, _WriterSchema | UnresolvableError] = {}  # schemas of the registry, cleared when full
        self._defaults = {
            field.name: Spans.of([encoded_default(field)]) for field in family.schema.fields if not field.required
        }
        own, nothing = _WriterSchema(resolve(family.schema.raw, family.schema), None), Spans.of([])
        self._no_rows = self._columns(own, nothing, nothing.starts)

    def decode(self, values: Sequence[bytes | None], timestamps: Sequence[int] | Ints | None = None) -> Rows:
        """Decode records; each becomes a row or a rejection.

        Args:
            values: values of the records, in the order of the micro-batch.
            timestamps: Kafka timestamp of each record, ms; None skips the comparison of times.

        Raises:
            UnavailableError: the registry doesn't answer; the same call may be repeated.
        """
        times = None if timestamps is None else np.asarray(timestamps, np.int64)
        return self.decode_slices([(Spans.of(values), times)], len(values))

    def decode_slices(self, slices: Iterable[tuple[Spans, Ints | None]], count: int) -> Rows:
        """Decode records that are read some after the other; each becomes a row or a rejection.

        Args:
            slices: values and timestamps, as `decode` takes them; times are compared if all slices have some.
            count: number of all records.

        Raises:
            UnavailableError: as `decode`.
        """
        parts, times, first = list[Rows](), list[Ints](), 0
        decodings = _Decodings(count)
        for values, timestamps in slices:
            for begin in range(0, len(values), _SLICE_ROWS):  # the columns of a slice stay in the CPU's cache
                parts += self._decode(values[begin : begin + _SLICE_ROWS], first + begin, decodings)
            times += [] if timestamps is None else [timestamps]
            first += len(values)
        rows = merge(parts or [self._no_rows])
        if times and sum(map(len, times)) == first:
            rows = check_times(rows, self._newest.fields, np.concatenate(times), self._validation)
        return self._sanitise(rows) if self._sanitise else rows

    def _decode(self, values: Spans, first: int, decodings: "_Decodings") -> list[Rows]:
        """Decode records whose first one is at position `first` of the micro-batch."""
        lengths, verdicts = np.maximum(values.lengths, 0), Verdicts(len(values))
        oversize = lengths > self._most_bytes
        verdicts.fail(oversize, Reason.OVERSIZE, f"over {self._most_bytes} bytes")
        records = replace(values, lengths=np.where(oversize, 0, lengths))
        frames = Frames(records)
        unknown = frames.framed
        if not unknown.all():
            _reject_unframed(verdicts, values, ~unknown)
        parts, absent = list[Rows](), dict[int, str]()
        for writer, members, header_bytes in self._groups(frames, absent):
            unknown &= ~members
            if isinstance(writer, UnresolvableError):
                verdicts.fail(members, Reason.WRONG_SCHEMA, str(writer))
            elif members.any():
                positions = np.flatnonzero(members)
                parts += self._rows(writer, records[positions].without(header_bytes), positions + first, decodings)
        unread = verdicts.rejections(np.arange(first, first + len(values)))
        unread += self._unknown.rejections(values, unknown, absent, first)
        if unread or not parts:
            parts.append(replace(self._no_rows, columns=dict(self._no_rows.columns), rejections=tuple(sorted(unread))))
        return parts

    def _writer(self, schema: Any) -> _WriterSchema | UnresolvableError:
        try:
            resolution = resolve(schema, self._newest)
            version = self._layouts.get(orjson.dumps(resolution.writer))
            if resolution.flat:
                plan = CompiledPlan.of(resolution, self._newest.fields)
                return _WriterSchema(resolution, None, plan, version)
            reference = Reference(resolution.writer, resolution.written, resolution.refused)
            return _WriterSchema(resolution, reference, version=version)
        except UnresolvableError as error:
            return error

    def _groups(
        self, frames: Frames, absent: dict[int, str]
    ) -> Iterator[tuple[_WriterSchema | UnresolvableError, Mask, int]]:
        """Yield each known writer schema, a mask of its records, and the size of their headers in bytes.

        Args:
            frames: frames of the micro-batch.
            absent: gets each schema id that the registry doesn't know, with the explanation.
        """
        left = frames.single_object
        for fingerprint, writer in self._versions.items():
            if not left.any():
                break
            members = frames.with_fingerprint(fingerprint)
            left = left & ~members
            yield writer, members, SINGLE_OBJECT_HEADER_BYTES
        if self._registry is None:
            return
        for schema_id in frames.schema_ids:
            try:
                writer = self._registered(self._registry, schema_id)
            except LookupError as error:
                absent[schema_id] = str(error)
                continue
            yield writer, frames.with_schema_id(schema_id), CONFLUENT_HEADER_BYTES

    def _registered(self, registry: SchemaSource, schema_id: int) -> _WriterSchema | UnresolvableError:
        writer = self._by_id.get(schema_id)
        if writer is None:
            try:
                writer = self._writer(registry.schema(schema_id))
            except UnresolvableError as error:
                writer = error
            if len(self._by_id) == _MAX_WRITER_SCHEMAS:
                self._by_id.clear()
            self._by_id[schema_id] = writer
        return writer

    def _rows(self, writer: _WriterSchema, bodies: Spans, positions: Ints, decodings: "_Decodings") -> Iterator[Rows]:
        if writer.reference is not None:
            yield self._flattened(writer, writer.reference, bodies, positions)
            return
        if (decoding := decodings.of(writer)) is not None:
            columns, marked = decoding.columns(bodies)
            yield Rows(columns, positions, ()).where(~marked)
            bodies, positions = bodies[marked], positions[marked]
            if not len(positions):
                return
        yield self._columns(writer, bodies, positions)

    def _flattened(self, writer: _WriterSchema, reference: Reference, bodies: Spans, positions: Ints) -> Rows:
        flat, places, rejections = [], [], []
        for position, body in zip(positions.tolist(), bodies.values(), strict=True):
            try:
                flat.append(reference.flatten(body))
                places.append(position)
            except MalformedError as error:
                rejections.append(Rejection(position, error.reason, str(error)))
        rows = self._columns(writer, Spans.of(flat), np.array(places, np.int64))
        return replace(rows, rejections=tuple(sorted([*rows.rejections, *rejections])))

    def _columns(self, writer: _WriterSchema, bodies: Spans, positions: Ints) -> Rows:
        """Read records of a flat schema: check their form, then hold the well-formed ones to the newest schema."""
        resolution = writer.resolution
        cursor = Cursor(bodies)
        read: dict[str, Raw] = {}
        for name, avro_type in resolution.written.items():
            raw = cursor.read(avro_type, name)
            if name in self._newest.by_name:  # a writer schema may have a thousand other fields
                read[name] = raw
        cursor.finish()
        rejections = cursor.verdicts.rejections(positions)
        if rejections:
            whole = cursor.verdicts.passed
            positions = positions[whole]
            read = {name: raw[whole] for name, raw in read.items()}
        read |= {field.name: self._default(field, len(positions), writer.version) for field in resolution.missing}
        verdicts = Verdicts(len(positions))
        columns: dict[str, Column] = {}
        for field in self._newest.fields:
            raw = promoted(verdicts, field, resolution.written.get(field.name), read[field.name])
            columns[field.name] = validate_field(verdicts, field, raw)
        return Rows(columns, positions, tuple(rejections)).passed(verdicts)

    def _default(self, field: Field, count: int, version: int | None) -> Raw:
        """Repeat the field's default for `count` records; it is read and checked like a written value."""
        default = self._defaults[field.name]
        if field.name == VERSION_FIELD and version is not None:
            default = Spans.of([encoded_default(replace(field, default=version))])
        return Cursor(default[np.zeros(count, np.int64)]).read(field.physical, field.name)


def _reject_unframed(verdicts: Verdicts, values: Spans, unframed: Mask) -> None:
    """Reject nulls, empty values and those without a frame; name the form of the latter."""
    verdicts.fail(values.lengths < 0, Reason.TOMBSTONE, "null value")
    verdicts.fail(values.lengths == 0, Reason.EMPTY, "no bytes")
    expected = "neither single-object nor Confluent framing"
    bare = np.flatnonzero(unframed & verdicts.passed)
    forms = np.array([guessed_form(value) for value in values[bare].values()], np.str_)
    for form in sorted(set(forms.tolist()) - {""}):
        alike = np.zeros(len(values), np.bool_)
        alike[bare[forms == form]] = True
        verdicts.fail(alike, Reason.UNFRAMED, f"{expected}; it looks like {form}")
    verdicts.fail(unframed, Reason.UNFRAMED, expected)
