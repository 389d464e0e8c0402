"""Hostile cases, and tools to make their bytes: valid events, encoded unchecked and patched."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import fastavro
from support.events import events

from pipeline.catalog import Catalog, Family
from pipeline.errors import Reason
from pipeline.producer.encode import Encoder
from pipeline.schema.framing import SINGLE_OBJECT_HEADER_BYTES, frame_single_object


@dataclass(frozen=True, slots=True)
class Case:
    """A record and its expected verdict."""

    name: str
    family: str
    value: bytes | None
    reason: Reason | None
    """Reason of its rejection; None if it must be stored, which guards against checks that are too strict."""
    key: str = ""
    """Key of the event in the record."""
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp_ms: int = 0
    """Timestamp of the record; 0 stands for now."""


def identity(name: str) -> str:
    """The key of the event with this name."""
    return str(uuid5(NAMESPACE_OID, name))


class Maker:
    """Makes cases of one family; each derives from a valid event with its own key.

    Args:
        family: the family of the cases.
    """

    def __init__(self, family: Family) -> None:
        self.family = family
        self._encoder = Encoder(family)
        self._event = events(family.name, 1)[0]

    @property
    def event(self) -> dict[str, Any]:
        """The valid event, with the key of the sample."""
        return self._event

    def valid(self, name: str, **changes: Any) -> bytes:
        """Encode the valid event with the key of `name`, as a record value."""
        return self._encoder.encode({**self._event, self.family.key: identity(name), **changes}).value

    def body(self, name: str, **physical: Any) -> bytes:
        """Encode the event as an Avro body without checks.

        Args:
            name: determines the key.
            physical: values of Avro's own types that replace fields.
        """
        values = self._encoder._values({**self._event, self.family.key: identity(name)}) | physical
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, self._encoder._schema, values)
        return stream.getvalue()

    def framed(self, body: bytes) -> bytes:
        """Frame a body with the fingerprint of the family's newest schema."""
        return frame_single_object(self.family.schema.fingerprint, body)

    def case(self, name: str, value: bytes | None, reason: Reason | None, **record: Any) -> Case:
        """Make a case with this record value."""
        full = f"{self.family.name}: {name}"
        return Case(full, self.family.name, value, reason, identity(name), **record)

    def broken(self, name: str, reason: Reason | None, **physical: Any) -> Case:
        """Make a case whose event has these physical values."""
        return self.case(name, self.framed(self.body(name, **physical)), reason)

    def patched(self, name: str, reason: Reason | None, old: bytes, new: bytes, **physical: Any) -> Case:
        """Make a case whose body has `new` in place of `old`, which occurs once."""
        return self.case(name, self.framed(patch(self.body(name, **physical), old, new)), reason)

    def cuts(self) -> Iterator[Case]:
        """Yield the record cut at every byte."""
        whole = self.valid("cut")
        for stop in range(len(whole)):
            reason = Reason.UNFRAMED if stop else Reason.EMPTY
            yield self.case(
                f"cut at byte {stop}", whole[:stop], Reason.TRUNCATED if stop >= SINGLE_OBJECT_HEADER_BYTES else reason
            )


def patch(body: bytes, old: bytes, new: bytes) -> bytes:
    """Replace bytes that occur exactly once."""
    assert body.count(old) == 1, (body, old)
    return body.replace(old, new)


def makers(catalog: Catalog) -> dict[str, Maker]:
    """Family name to its maker."""
    return {family.name: Maker(family) for family in catalog.families}
