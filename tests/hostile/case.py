"""What a hostile case is, and the tools to make its bytes: valid events, encoded without a check, and patched."""

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
    """A record, and what has to become of it."""

    name: str
    family: str
    value: bytes | None
    reason: Reason | None
    """Why it is rejected; None when it is stored, so that no check is too strict."""
    key: str = ""
    """Of the event that it may be stored as."""
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp_ms: int = 0
    """Of the record; now when 0."""


def identity(name: str) -> str:
    """The key of the event of that name."""
    return str(uuid5(NAMESPACE_OID, name))


class Maker:
    """Makes cases of one family, each from a valid event whose key is its own.

    Args:
        family: whose they are.
    """

    def __init__(self, family: Family) -> None:
        self.family = family
        self._encoder = Encoder(family)
        self._event = events(family.name, 1)[0]

    @property
    def event(self) -> dict[str, Any]:
        """The valid event, but for its key."""
        return self._event

    def valid(self, name: str, **changes: Any) -> bytes:
        """The record of the valid event, with its key."""
        return self._encoder.encode({**self._event, self.family.key: identity(name), **changes}).value

    def body(self, name: str, **physical: Any) -> bytes:
        """The Avro body of that event, with these values of Avro's own types, whatever the schema declares."""
        values = self._encoder._values({**self._event, self.family.key: identity(name)}) | physical
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, self._encoder._schema, values)
        return stream.getvalue()

    def framed(self, body: bytes) -> bytes:
        """A body as the family's newest schema frames it."""
        return frame_single_object(self.family.schema.fingerprint, body)

    def case(self, name: str, value: bytes | None, reason: Reason | None, **record: Any) -> Case:
        """A case with these bytes."""
        full = f"{self.family.name}: {name}"
        return Case(full, self.family.name, value, reason, identity(name), **record)

    def broken(self, name: str, reason: Reason | None, **physical: Any) -> Case:
        """A case whose event has these values."""
        return self.case(name, self.framed(self.body(name, **physical)), reason)

    def patched(self, name: str, reason: Reason | None, old: bytes, new: bytes, **physical: Any) -> Case:
        """A case with other bytes in the place of some that occur once in its body."""
        return self.case(name, self.framed(patch(self.body(name, **physical), old, new)), reason)

    def cuts(self) -> Iterator[Case]:
        """The record, cut at every byte."""
        whole = self.valid("cut")
        for stop in range(len(whole)):
            reason = Reason.UNFRAMED if stop else Reason.EMPTY
            yield self.case(
                f"cut at byte {stop}", whole[:stop], Reason.TRUNCATED if stop >= SINGLE_OBJECT_HEADER_BYTES else reason
            )


def patch(body: bytes, old: bytes, new: bytes) -> bytes:
    """Other bytes in the place of some that occur once."""
    assert body.count(old) == 1, (body, old)
    return body.replace(old, new)


def makers(catalog: Catalog) -> dict[str, Maker]:
    """One for each family."""
    return {family.name: Maker(family) for family in catalog.families}
