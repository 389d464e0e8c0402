"""Raw dump of Kafka records: JSON Lines, one record a line, with its coordinates and its bytes in Base64.

    {"topic":"chimera.ui_events","topic_id":"Kq3mXo5pQ0uWm0n0aD2x7A","partition":0,"offset":7,
     "timestamp_ms":1769817600000,"key":"…","value":"…","headers":[["name","…"]]}

All of it is one line. `topic_id` is Kafka's id as its tools write it, or null if the writer doesn't know it; `key`,
`value` and the values of headers may be null. A reader ignores other names. A dump has records of one topic, those of
each partition by ascending offset. It may be compressed with gzip.
"""

import gzip
import zlib
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from pipeline.clickhouse.coordinates import Source
from pipeline.operations.lineage.sources import SourceError

GZIP_MAGIC = b"\x1f\x8b"
_LONGEST = 512 * 1024 * 1024  # bytes of a line; the largest record that topics.yaml allows takes less
_NUMBERS = {"partition": range(2**16), "offset": range(2**63), "timestamp_ms": range(-(2**63), 2**63)}


@dataclass(frozen=True, slots=True)
class DumpedRecord:
    """A record as a dump has it."""

    topic: str
    topic_id: str | None
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def dumped_line(record: DumpedRecord) -> bytes:
    """Return a record as a line of a dump."""
    return orjson.dumps(
        {
            "topic": record.topic,
            "topic_id": record.topic_id,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp_ms": record.timestamp_ms,
            "key": _text(record.key),
            "value": _text(record.value),
            "headers": [[name, _text(value)] for name, value in record.headers],
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


def dumped_records(path: Path, file: BufferedReader) -> Iterator[tuple[int, DumpedRecord]]:
    """Yield the records of a dump in their order, with the numbers of their lines, from 1 on.

    Args:
        path: for messages.
        file: the file, at its beginning.

    Raises:
        SourceError: the file is damaged; the message names the line.
    """
    zipped = file.peek(2)[:2] == GZIP_MAGIC
    lines: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=file) if zipped else file
    number = 0
    try:
        while line := lines.readline(_LONGEST):
            number += 1
            yield number, _record(line)
    except _DamagedLineError as error:
        raise SourceError(f"{path}: line {number}: {error}; expected one whole record of a raw dump a line") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{path}: damaged behind line {number}: {error}; expected a whole gzip file") from None


class _DamagedLineError(Exception):
    """A line that is no record; the message never has its content."""


def _record(line: bytes) -> DumpedRecord:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise _DamagedLineError("not JSON, or cut off") from None
    if not isinstance(found, dict):
        raise _DamagedLineError("not an object")
    for name, allowed in _NUMBERS.items():
        if type(found.get(name)) is not int or found[name] not in allowed:
            raise _DamagedLineError(f"{name}: expected a whole number from {allowed.start} to {allowed.stop - 1}")
    if not isinstance(found.get("topic"), str):
        raise _DamagedLineError("topic: expected the name of a topic")
    return DumpedRecord(
        found["topic"],
        _topic_id(found),
        found["partition"],
        found["offset"],
        found["timestamp_ms"],
        _bytes("key", found),
        _bytes("value", found),
        _headers(found),
    )


def _topic_id(found: dict[str, Any]) -> str | None:
    topic_id = found.get("topic_id")
    try:
        if topic_id is not None:
            Source.of(topic_id, 0)
    except (ValueError, TypeError):
        raise _DamagedLineError("topic_id: expected 22 characters of Base64, or null") from None
    return topic_id


def _headers(found: dict[str, Any]) -> tuple[tuple[str, bytes | None], ...]:
    try:
        return tuple((str(name), _bytes("headers", {"headers": value})) for name, value in found.get("headers") or ())
    except (ValueError, TypeError):
        raise _DamagedLineError("headers: expected a list of pairs") from None


def _bytes(name: str, found: dict[str, Any]) -> bytes | None:
    if name not in found:
        raise _DamagedLineError(f"{name}: missing")
    text = found[name]
    try:
        return None if text is None else a2b_base64(text, strict_mode=True)
    except (ValueError, TypeError):
        raise _DamagedLineError(f"{name}: expected Base64, or null") from None


def _text(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode()
