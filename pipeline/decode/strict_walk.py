"""Walks strictly through the bytes of one Avro record, without making values.

It accepts only canonical varints, booleans of 0 or 1 and existing indexes, and no bytes after the last field. Each type
of a checked writer schema takes at least a byte and nesting is limited, so that the bytes bound the length of the walk.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pipeline.errors import Reason
from pipeline.schema.fields import PRIMITIVES

_WIDTHS = {"null": 0, "float": 4, "double": 8}


class MalformedError(Exception):
    """A record that can't be read, with the reason; the message never holds its content."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def walk_strictly(schema: Any, named: dict[str, Any], body: bytes) -> None:
    """Check the form of one record.

    Args:
        schema: the record's schema, as fastavro parsed it.
        named: the named types that the schema refers to.
        body: the whole record, without framing.

    Raises:
        MalformedError: the record is malformed; tells the first problem.
    """
    for _ in field_ends(schema, named, body):
        pass


def field_ends(schema: Any, named: dict[str, Any], body: bytes) -> Iterator[int]:
    """Yield the end of each field, as an index into `body`, up to the first malformed field.

    Arguments and errors are those of `walk_strictly`.
    """
    walk = _Walk(named, body)
    for field in schema["fields"]:
        walk.value(field["type"], field["name"])
        yield walk.at
    if walk.at != len(body):
        raise MalformedError(Reason.TRAILING_BYTES, "bytes after the last field")


def record_end(schema: Any, named: dict[str, Any], body: bytes, start: int) -> int:
    """Return the end of the record that begins at `start` of bytes with several records.

    Arguments and errors are those of `walk_strictly`.
    """
    walk = _Walk(named, body)
    walk.at = start
    for field in schema["fields"]:
        walk.value(field["type"], field["name"])
    return walk.at


class ItemPlaces(NamedTuple):
    """Places of the items of one list, or of the values of a map, in the bytes."""

    items: Sequence[int] = ()
    keys: Sequence[int] = ()
    """Places of a map's keys."""
    end: int = 0


def item_places(schema: Any, data: bytes, start: int, end: int, name: str) -> ItemPlaces:
    """Walk over one list or map of scalars that begins at `start`; its record ends at `end`.

    Args:
        schema: an array or a map of a scalar type, as parsed JSON.
        data: bytes of many records.
        start: first byte of the list.
        end: end of its record.
        name: name of the field.

    Raises:
        MalformedError: as `walk_strictly`.
    """
    walk = _Walk({}, data, end)
    walk.at, walk.places = start, []
    walk.blocks(schema, name)
    items, keys = walk.places, list[int]()
    if schema["type"] == "map":
        keys, items = items[::2], items[1::2]
    return ItemPlaces(items, keys, walk.at)


def branch_index(body: bytes, start: int) -> int:
    """Return the index of a union's branch at `start` of a record that was walked before."""
    walk = _Walk({}, body)
    walk.at = start
    return walk.integer(32, "")


class _Walk:
    """A position in the bytes of a record; each method passes over one part."""

    def __init__(self, named: dict[str, Any], body: bytes, end: int | None = None) -> None:
        self.named = named
        self.body = body
        self.end = len(body) if end is None else end
        self.at = 0
        self.places: list[int] | None = None  # gets the place of each item, if it is a list

    def value(self, schema: Any, name: str) -> None:
        kind = schema["type"] if isinstance(schema, dict) else schema
        match kind:
            case "enum":
                self.index(len(schema["symbols"]), name)
            case "fixed":
                self.skip(schema["size"], name)
            case "array" | "map":
                self.blocks(schema, name)
            case "record":
                for field in schema["fields"]:
                    self.value(field["type"], field["name"])
            case [*branches]:
                self.value(branches[self.index(len(branches), name)], name)
            case str() if kind in PRIMITIVES | {"null"}:
                self.primitive(kind, name)
            case _:
                self.value(self.named[kind], name)

    def primitive(self, kind: str, name: str) -> None:
        match kind:
            case "int" | "long":
                self.integer(32 if kind == "int" else 64, name)
            case "boolean":
                self.boolean(name)
            case "string" | "bytes":
                self.sized(name)
            case _:
                self.skip(_WIDTHS[kind], name)

    def skip(self, width: int, name: str) -> None:
        if width > self.end - self.at:
            raise MalformedError(Reason.TRUNCATED, f"{name}: the record ends inside it")
        self.at += width

    def boolean(self, name: str) -> None:
        self.skip(1, name)
        if self.body[self.at - 1] > 1:
            raise MalformedError(Reason.MALFORMED, f"{name}: a boolean is 0 or 1")

    def integer(self, bits: int, name: str) -> int:
        """Pass over a zig-zag varint in its shortest form, and return its value."""
        unsigned = 0
        for place in range(10):
            self.skip(1, name)
            byte = self.body[self.at - 1]
            unsigned |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                break
        if byte >= 0x80 or (place and byte == 0) or unsigned >= 1 << 64:
            raise MalformedError(Reason.MALFORMED, f"{name}: not a canonical varint of at most 64 bits")
        if unsigned >= 1 << bits:
            raise MalformedError(Reason.MALFORMED, f"{name}: wider than {bits} bits")
        return (unsigned >> 1) ^ -(unsigned & 1)

    def index(self, count: int, name: str) -> int:
        index = self.integer(32, name)
        if not 0 <= index < count:
            raise MalformedError(Reason.MALFORMED, f"{name}: no such branch or symbol")
        return index

    def sized(self, name: str) -> None:
        length = self.integer(64, name)
        if length < 0:
            raise MalformedError(Reason.MALFORMED, f"{name}: negative length")
        self.skip(length, name)

    def place(self) -> None:
        """Note the place of an item, if places are wanted."""
        if self.places is not None:
            self.places.append(self.at)

    def blocks(self, schema: Any, name: str) -> None:
        """Pass over the blocks of an array or a map; the block's size in bytes follows a negative count."""
        while count := self.integer(64, name):
            end = None
            if count < 0:
                size = self.integer(64, name)
                end = self.at + size
            for _ in range(abs(count)):
                if schema["type"] == "map":
                    self.place()
                    self.sized(name)
                self.place()
                self.value(schema["values" if schema["type"] == "map" else "items"], name)
            if end not in (None, self.at):
                raise MalformedError(Reason.MALFORMED, f"{name}: a block of another size than it says")
