"""A family with every kind of field, a good record of it, registries for its writers, and damage to its records."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipeline.columns import Rows
from pipeline.errors import Reason, UnavailableError
from pipeline.schema.framing import frame_single_object
from pipeline.schema.writer_schema import parse_schema
from support import oracle
from support.avro_cases import encode, make_family, record

ANY = record(
    [
        {"name": "count", "type": "int", "min": 0, "max": 10},
        {"name": "ratio", "type": "float"},
        {"name": "open", "type": "boolean"},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "kind", "type": "string", "values": ["open", "shut"]},
        {"name": "slug", "type": "string", "pattern": "^[a-z]+(-[a-z]+)*$"},
        {"name": "sha", "type": "string", "pattern": "^[0-9a-f]{8}$"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, "min": "0"},
        {"name": "note", "type": "string", "max_length": 6, "default": "none"},
    ]
)
GOOD: dict[str, Any] = {
    "count": 7,
    "ratio": 0.5,
    "open": True,
    "id": "6D9A30C2-15fe-4b7d-a2c8-0e74b95f1d36",
    "kind": "shut",
    "slug": "one-two",
    "sha": "0123abcd",
    "price": b"\x04\xd2",
    "note": "größ",
}
FAMILY = make_family([ANY])
FINGERPRINT = FAMILY.schema.fingerprint
BODY = encode(ANY, GOOD)
ROW = GOOD | {
    "id": bytes.fromhex("6d9a30c215fe4b7da2c80e74b95f1d36"),
    "kind": b"shut",
    "slug": b"one-two",
    "sha": b"0123abcd",
    "price": 1234,
    "note": "größ".encode(),
}


class Known:
    """A registry that holds these schemas; the id of a schema is its index."""

    def __init__(self, *schemas: Any) -> None:
        self.schemas = schemas
        self.asked: Counter[int] = Counter()

    def schema(self, schema_id: int) -> Any:
        """Return the schema with this id, and count the call."""
        self.asked[schema_id] += 1
        if schema_id >= len(self.schemas):
            raise LookupError(schema_id)
        return self.schemas[schema_id]


class Registered:
    """A registry that returns this text for every id."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked = 0

    def schema(self, _schema_id: int) -> Any:
        """Parse the text, and count the call."""
        self.asked += 1
        return parse_schema(self.text)


class Silent:
    """A registry that is down."""

    def schema(self, _schema_id: int) -> Any:
        """Fail as a registry that is down."""
        raise UnavailableError("the registry at http://localhost:8081 does not answer")


def good(**changes: Any) -> bytes:
    """The good record with these changes, framed."""
    return frame_single_object(FINGERPRINT, encode(ANY, GOOD | changes))


def cuts(body: bytes) -> list[bytes]:
    """The body cut at every byte."""
    return [body[:stop] for stop in range(len(body))]


def flips(body: bytes) -> list[bytes]:
    """The body with every single bit flipped."""
    return [body[:at] + bytes([octet ^ 1 << bit]) + body[at + 1 :] for at, octet in enumerate(body) for bit in range(8)]


def assert_as_expected(rows: Rows, expected: Sequence[Any]) -> None:
    """Compare rows and reasons with the oracle's, one for each record."""
    assert oracle.rows_of(rows) == [row for row in expected if isinstance(row, dict)]
    reasons = {at: verdict for at, verdict in enumerate(expected) if isinstance(verdict, Reason)}
    assert {rejection.position: rejection.reason for rejection in rows.rejections} == reasons
