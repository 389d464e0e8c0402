"""Foreign writer schemas that are accepted, records of them, and a registry that serves them and the refused ones."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import fastavro

from hostile.case import Case, Maker, patch
from hostile.writers import WRITERS
from pipeline.config import Settings
from pipeline.devstack.ports import HOST
from pipeline.errors import Reason
from pipeline.schema.framing import frame_confluent
from pipeline.schema.versions import load_schemas

UNKNOWN_ID = 999_999
NEITHER = "no Avro at all"
_NEWEST = load_schemas(Settings().schemas.directory)["ui_events"][-1].raw
PLAIN = [
    {"name": field["name"], "type": field["type"]["type"] if isinstance(field["type"], dict) else field["type"]}
    for field in _NEWEST["fields"]
]
_EXTRA: dict[str, Any] = {
    "nullable": ["null", "string"],
    "mood": {"type": "enum", "name": "Mood", "symbols": ["GOOD", "BAD"]},
    "open": "boolean",
    "sizes": {"type": "array", "items": "int"},
    "names": {"type": "map", "values": "string"},
    "hash": {"type": "fixed", "name": "Hash", "size": 4},
    "inner": {
        "type": "record",
        "name": "Inner",
        "fields": [{"name": "moods", "type": {"type": "map", "values": "Mood"}}],
    },
}
FOREIGN: dict[str, Any] = {
    **{
        f"with {name}": {**_NEWEST, "fields": [*PLAIN, {"name": name, "type": each}]}
        for name, each in _EXTRA.items()
        if name != "inner"
    },
    "with inner": {
        **_NEWEST,
        "fields": [*PLAIN, *({"name": name, "type": _EXTRA[name]} for name in ("mood", "inner"))],
    },
    "all nullable": {**_NEWEST, "fields": [{**field, "type": ["null", field["type"]]} for field in PLAIN]},
}
"""Accepted writer schemas. Most have the fields of the newest schema and extra ones at the end."""

_SCHEMAS = {**WRITERS, **{name: json.dumps(schema) for name, schema in FOREIGN.items()}, NEITHER: "{}"}
_IDS = {name: number for number, name in enumerate(_SCHEMAS, 1)}


_GREATEST, _LEAST = b"\xfe" + b"\xff" * 8 + b"\x01", b"\xff" * 9 + b"\x01"
_ENDINGS: dict[str, dict[str, tuple[bytes, Reason | None]]] = {
    "nullable": {
        "null": (b"\0", None),
        "a text": (b"\x02\x04ok", None),
        "a branch that isn't there": (b"\x04", Reason.MALFORMED),
        "branch -1": (b"\x01", Reason.MALFORMED),
        "a branch of 64 bits": (_GREATEST, Reason.MALFORMED),
    },
    "mood": {
        "a symbol": (b"\x02", None),
        "a symbol that isn't there": (b"\x04", Reason.MALFORMED),
        "symbol -1": (b"\x01", Reason.MALFORMED),
        "a symbol of 64 bits": (_GREATEST, Reason.MALFORMED),
    },
    "open": {"true": (b"\x01", None), "2": (b"\x02", Reason.MALFORMED), "nothing": (b"", Reason.TRUNCATED)},
    "sizes": {
        "two, with the size of their block": (b"\x03\x04\x02\x04\0", None),
        "more than bytes": (b"\x80\x80\x80\x80\x20" + b"\0" * 50, Reason.TRUNCATED),
        "as many as a number says": (_GREATEST + b"\0" * 50, Reason.TRUNCATED),
        "the least number": (_LEAST + b"\x02" + b"\0" * 50, Reason.TRUNCATED),
        "a block of another size": (b"\x03\x10\x02\x04\0", Reason.MALFORMED),
        "a block of a size below 0": (b"\x03\x01\x02\x04\0", Reason.MALFORMED),
        "one of 33 bits": (b"\x02\x80\x80\x80\x80\x10\0", Reason.MALFORMED),
        "no end": (b"\x02\x02", Reason.TRUNCATED),
    },
    "names": {
        "a key of -1 bytes": (b"\x02\x01\0", Reason.MALFORMED),
        "a key of all memory": (b"\x02" + _GREATEST, Reason.TRUNCATED),
        "blocks by the thousand": (b"\x02\x02a\x02b" * 5000 + b"\0", None),
    },
    "hash": {"a byte too few": (b"abc", Reason.TRUNCATED), "a byte too many": (b"abcde", Reason.TRAILING_BYTES)},
    "inner": {
        "a map of symbols": (b"\0\x02\x02a\x02\0", None),
        "a map with a symbol that isn't there": (b"\0\x02\x02a\x06\0", Reason.MALFORMED),
    },
}
"""Extra field to the bytes that it ends a record with, and the verdict on the record."""


def id_of(name: str) -> int:
    """The id of the schema with this name."""
    return _IDS[name]


def foreign_cases(ui: Maker) -> Iterator[Case]:
    """Yield records that are valid up to their extra last field, and records with nullable fields."""
    for field, some in _ENDINGS.items():
        for what, (ending, reason) in some.items():
            name = f"{field}: {what}"
            yield ui.case(name, frame_confluent(id_of(f"with {field}"), ui.body(name) + ending), reason)
    yield from _nullable(ui)


def _nullable(ui: Maker) -> Iterator[Case]:
    schema = fastavro.parse_schema(FOREIGN["all nullable"], _write_hint=False)

    def encoded(name: str, **changes: Any) -> bytes:
        written: Any = fastavro.schemaless_reader(io.BytesIO(ui.body(name)), {**_NEWEST, "fields": PLAIN}, None)
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, schema, written | changes)
        return stream.getvalue()

    def framed(body: bytes) -> bytes:
        return frame_confluent(id_of("all nullable"), body)

    yield ui.case("all nullable: all there", framed(encoded("all nullable: all there")), None)
    for field in PLAIN:
        name = f"all nullable: {field['name']} is null"
        yield ui.case(name, framed(encoded(name, **{field["name"]: None})), Reason.WRONG_SCHEMA)
    agent = patch(encoded("latin", user_agent="Agent/1.0"), b"Agent", b"Ag\xe9nt")
    yield ui.case("all nullable: no UTF-8", framed(agent), Reason.INVALID_UTF8)
    yield ui.case("all nullable: NUL", framed(encoded("nul", user_agent="Agent\0")), Reason.NUL_BYTE)
    yield ui.case("all nullable: out of bounds", framed(encoded("out", latency_ms=-1)), Reason.OUT_OF_BOUNDS)
    whole = encoded("cut")
    for stop in range(len(whole)):
        yield ui.case(f"all nullable: cut at byte {stop}", framed(whole[:stop]), Reason.TRUNCATED)


@contextmanager
def registry(port: int) -> Iterator[None]:
    """Serve all these schemas on a port, as Confluent's registry does."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # send an answer in one packet; the second of two would wait for an acknowledgement

        def do_GET(self) -> None:
            number = self.path.partition("/schemas/ids/")[2].partition("?")[0]
            name = next((name for name, schema_id in _IDS.items() if str(schema_id) == number), None)
            if name is None:
                self._answer(HTTPStatus.NOT_FOUND, {"error_code": 40403, "message": "Schema not found"})
            else:
                self._answer(
                    HTTPStatus.OK, {"schema": _SCHEMAS[name]} | ({"schemaType": "JSON"} if name == NEITHER else {})
                )

        def _answer(self, status: HTTPStatus, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Suppress the log."""

    with ThreadingHTTPServer((HOST, port), Handler) as server:
        server.daemon_threads = True  # clients keep their connections open
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
