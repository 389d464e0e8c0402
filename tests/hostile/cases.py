"""All hostile cases with their verdicts, and valid cases that only look hostile."""

import gzip
import math
import random
import struct
import time
from collections.abc import Iterator
from itertools import chain as chained
from typing import Any

import orjson

from hostile.case import Case, Maker, identity, makers
from hostile.foreign import FOREIGN, NEITHER, UNKNOWN_ID, foreign_cases, id_of
from hostile.writers import WRITERS
from pipeline.catalog import Catalog
from pipeline.errors import Reason
from pipeline.schema.framing import SINGLE_OBJECT_HEADER_BYTES, frame_confluent, frame_single_object

MIB = 1 << 20
_DAY_MS = 86_400_000
_LAST_MS = 2**32 * 1000 - 1  # last moment of DateTime and the daily partitions, in 2106
_NO_UTF8 = {
    "overlong": b"\xc0\xaf",
    "surrogate": b"\xed\xa0\x80",
    "continuation": b"\x80",
    "half a letter": b"\xc3",
    "beyond Unicode": b"\xf4\x90\x80\x80",
}


def all_cases(catalog: Catalog) -> list[Case]:
    """All cases; large ones come last, so that the others share a micro-batch."""
    made = makers(catalog)
    by_family = [*(maker.cuts() for maker in made.values()), *(_times(maker) for maker in made.values())]
    ui, bench, episodes = made["ui_events"], made["bench_runs"], made["episodes"]
    groups = (_frames(made), _bytes(ui), _texts(ui), _ids(ui), _numbers(ui), _json(ui), _words(made), _floats(episodes))
    foreign = (_writers(ui), foreign_cases(ui))
    return list(chained(*by_family, *groups, _decimals(bench), *foreign, _large(ui)))


def _frames(made: dict[str, Maker]) -> Iterator[Case]:
    ui, other = made["ui_events"], made["episodes"]
    whole, body = ui.valid("frame"), ui.body("frame")
    yield ui.case("null value", None, Reason.TOMBSTONE)
    yield ui.case("empty value", b"", Reason.EMPTY)
    yield ui.case("Avro without a frame", body, Reason.UNFRAMED)
    yield ui.case("JSON", orjson.dumps(ui.event), Reason.UNFRAMED)
    yield ui.case("random bytes", random.Random(1).randbytes(300), Reason.UNFRAMED)
    yield ui.case("an Avro file", b"Obj\x01" + body, Reason.UNFRAMED)
    yield ui.case("compressed", gzip.compress(whole), Reason.UNFRAMED)
    yield ui.case("marker in the wrong order", b"\x01\xc3" + whole[2:], Reason.UNFRAMED)
    yield ui.case("magic of another version", b"\x01" + frame_confluent(1, body)[1:], Reason.UNFRAMED)
    yield ui.case("fingerprint of nobody", frame_single_object(bytes(8), body), Reason.UNKNOWN_SCHEMA)
    yield ui.case("fingerprint backwards", whole[:2] + whole[9:1:-1] + whole[10:], Reason.UNKNOWN_SCHEMA)
    yield ui.case("record of another family", other.valid("other"), Reason.UNKNOWN_SCHEMA)
    yield ui.case("id that the registry doesn't know", frame_confluent(UNKNOWN_ID, body), Reason.UNKNOWN_SCHEMA)
    yield ui.case("id -1", b"\0\xff\xff\xff\xff" + body, Reason.UNKNOWN_SCHEMA)
    yield ui.case("id of a JSON schema", frame_confluent(id_of(NEITHER), body), Reason.UNKNOWN_SCHEMA)
    yield ui.case("framed twice", ui.framed(frame_confluent(1, body)), Reason.TRUNCATED)
    yield ui.case("nothing but a frame", ui.framed(b""), Reason.TRUNCATED)
    yield ui.case("a byte too many", whole + b"\0", Reason.TRAILING_BYTES)
    yield ui.case("two records in one", whole + body, Reason.TRAILING_BYTES)
    yield ui.case("two frames in one", whole + whole, Reason.TRAILING_BYTES)


def _bytes(ui: Maker) -> Iterator[Case]:
    """Yield cases about the varint of the first field, the length of the second, and the int at the end."""
    body = ui.body("bytes")
    session = b"\x48" + identity("bytes").encode()
    ts, rest = body[: body.index(session)], body[body.index(session) :]
    varints = {
        "a varint of eleven bytes": (b"\x80" * 10 + b"\x01", Reason.MALFORMED),
        "a varint over 64 bits": (b"\xff" * 9 + b"\x02", Reason.MALFORMED),
        "a varint of ten times FF": (b"\xff" * 10, Reason.MALFORMED),
        "a varint in one byte too many": (bytes([*ts[:-1], ts[-1] | 0x80]) + b"\0", Reason.MALFORMED),
        "the least number of 64 bits": (b"\xff" * 9 + b"\x01", Reason.OUT_OF_BOUNDS),
        "the greatest number of 64 bits": (b"\xfe" + b"\xff" * 8 + b"\x01", Reason.OUT_OF_BOUNDS),
    }
    for name, (varint, reason) in varints.items():
        yield ui.case(name, ui.framed(varint + rest), reason)
    yield ui.case("a varint without an end", ui.framed(b"\xff" * 9), Reason.TRUNCATED)
    lengths = {
        "a length of -1": (b"\x01", Reason.MALFORMED),
        "the least length of 64 bits": (b"\xff" * 9 + b"\x01", Reason.MALFORMED),
        "the greatest length of 64 bits": (b"\xfe" + b"\xff" * 8 + b"\x01", Reason.TRUNCATED),
        "a length of four gigabytes": (b"\x80\x80\x80\x80\x20", Reason.TRUNCATED),
        "a length of no bytes": (b"\x00", Reason.MALFORMED),
    }
    for name, (length, reason) in lengths.items():
        yield ui.case(name, ui.framed(ts + length + rest[1:]), reason)
    ints = {
        "an int of 33 bits": (b"\x80\x80\x80\x80\x10", Reason.MALFORMED),
        "an int of 33 bits, negative": (b"\x81\x80\x80\x80\x10", Reason.MALFORMED),
        "an int of 64 bits": (b"\xfe" + b"\xff" * 8 + b"\x01", Reason.MALFORMED),
        "the greatest int": (b"\xfe\xff\xff\xff\x0f", Reason.OUT_OF_BOUNDS),
        "an int out of its bounds": (b"\x80\x04", Reason.OUT_OF_BOUNDS),
    }
    for name, (number, reason) in ints.items():
        yield ui.case(name, ui.framed(body[:-1] + number), reason)


def _texts(ui: Maker) -> Iterator[Case]:
    agent = b"Agent/1.0"
    for name, octets in _NO_UTF8.items():
        for field, old in (("user_agent", agent), ("event_type", b"error"), ("commit_sha", b"f" * 5)):
            new = octets + old[len(octets) :]
            physical = {"user_agent": agent.decode(), "event_type": "error", "commit_sha": "f" * 5 + "0" * 35}
            yield ui.patched(f"{name} in {field}", Reason.INVALID_UTF8, old, new, **physical)
    yield ui.patched(
        "no UTF-8 in a UUID", Reason.INVALID_UTF8, identity("u")[:2].encode(), b"\xff\xfe", session_id=identity("u")
    )
    for field, value in {
        "user_agent": "Agent\0/1.0",
        "metadata": '{"a": "b"}\0',
        "event_type": "error\0",
        "commit_sha": "0" * 39 + "\0",
        "session_id": "\0" + identity("nul")[1:],
    }.items():
        yield ui.broken(f"NUL in {field}", Reason.NUL_BYTE, **{field: value})
    yield ui.broken("a text of a byte more than may be", Reason.TOO_LONG, user_agent="x" * 1025)
    yield ui.broken("a text of letters of two bytes, one more than may be", Reason.TOO_LONG, user_agent="ä" * 513)
    yield ui.broken("a text of as many bytes as may be", None, user_agent="ä" * 512)
    yield ui.broken("metadata of more bytes than may be", Reason.TOO_LONG, metadata='{"a": "%s"}' % ("x" * 65_536))


def _ids(ui: Maker) -> Iterator[Case]:
    canonical = identity("uuid")
    for name, text in {
        "in braces": f"{{{canonical}}}",
        "as a URN": f"urn:uuid:{canonical}",
        "without dashes": canonical.replace("-", ""),
        "with a dash in another place": canonical[:7] + "-" + canonical[7] + canonical[9:],
        "with another letter": canonical[:-1] + "g",
        "with a blank before it": " " + canonical[1:],
        "of 35 characters": canonical[:-1],
        "of 37 characters": canonical + "0",
        "of full-width digits": canonical[:-3] + "\uff11",
        "in base 64": "bZowwhX+S32iyA50uV8dNg==",
        "of nothing": "",
    }.items():
        yield ui.broken(f"a UUID {name}", Reason.INVALID_UUID, session_id=text)
    yield ui.broken("a UUID in capitals", None, session_id=identity("a UUID in capitals").upper())
    for name, text in {
        "of 39 characters": "a" * 39,
        "of 41 characters": "a" * 41,
        "in capitals": "A" * 40,
        "of SHA-256": "a" * 64,
        "with another letter": "g" + "a" * 39,
        "with a newline behind it": "a" * 39 + "\n",
        "of full-width digits": "\uff11" * 13 + "a",
        "of nothing": "",
    }.items():
        yield ui.broken(f"a commit {name}", Reason.PATTERN_MISMATCH, commit_sha=text)


def _numbers(ui: Maker) -> Iterator[Case]:
    for name, number in {"-1": -1, "of 33 bits": 2**32, "the greatest": 2**63 - 1, "the least": -(2**63)}.items():
        yield ui.broken(f"a latency of {name}", Reason.OUT_OF_BOUNDS, latency_ms=number)
    yield ui.broken("the greatest latency", None, latency_ms=2**32 - 1)
    yield ui.broken("a layout of -1", Reason.OUT_OF_BOUNDS, schema_version=-1)


def _json(ui: Maker) -> Iterator[Case]:
    for name, text in {
        "no JSON": "{",
        "a list": "[]",
        "a number": "7",
        "nothing": "",
        "NaN": '{"a": NaN}',
        "thousands of levels": '{"a": ' * 5000 + "1" + "}" * 5000,
    }.items():
        yield ui.broken(f"metadata: {name}", Reason.INVALID_JSON, metadata=text)


def _times(maker: Maker) -> Iterator[Case]:
    now = time.time_ns() // 1_000_000
    for name, ts in {
        "before 1970": -1,
        "long before 1970": -(2**62),
        "after what a date holds": _LAST_MS + 1,
        "in microseconds": now * 1000,
        "in nanoseconds": now * 1_000_000,
        "in the last moment of 2106, which is ahead of the record": _LAST_MS,
        "two days ahead of the record": now + 2 * _DAY_MS,
    }.items():
        yield maker.broken(f"a time {name}", Reason.OUT_OF_BOUNDS, ts=ts)
    yield maker.broken("a time of 1970", None, ts=0)
    yield maker.broken("a time some hours ahead of the record", None, ts=now + _DAY_MS - 3_600_000)


def _words(made: dict[str, Maker]) -> Iterator[Case]:
    """Yield cases about closed sets, and patterns that aren't one class of characters."""
    for name, text in {"in capitals": "ERROR", "with a blank": "error ", "a prefix": "err", "nothing": ""}.items():
        yield made["ui_events"].broken(f"an event type: {name}", Reason.NOT_IN_SET, event_type=text)
    for name, text in {
        "a blank": "a b",
        "too long": "a" * 129,
        "a dot first": ".a",
        "a newline": "a\n",
        "": "",
    }.items():
        yield made["llm_events"].broken(f"a model with {name}", Reason.PATTERN_MISMATCH, model=text)
    for name, text in {"javascript": "javascript:alert(1)", "a newline": "https://a\n", "no host": "https://"}.items():
        yield made["deployments"].broken(f"an address with {name}", Reason.PATTERN_MISMATCH, url=text)
    yield made["deployments"].broken("an address with NUL", Reason.NUL_BYTE, url="https://a\0b")
    yield made["deployments"].broken("an address of too many bytes", Reason.TOO_LONG, url="https://" + "a" * 2041)
    yield made["watcher_runs"].broken("a commit of blanks", Reason.PATTERN_MISMATCH, packs_commit=" " * 40)


def _floats(episodes: Maker) -> Iterator[Case]:
    for field in ("confidence_score", "correlation_strength"):
        for name, number in {"NaN": math.nan, "infinity": math.inf, "-infinity": -math.inf}.items():
            yield episodes.broken(f"{field}: {name}", Reason.NOT_FINITE, **{field: number})
        yield episodes.broken(f"{field}: more than 1", Reason.OUT_OF_BOUNDS, **{field: 1.0000002})
        yield episodes.broken(f"{field}: the least there is", None, **{field: 1e-45})
    signalling = struct.pack("<I", 0x7FA00001)
    yield episodes.patched(
        "a signalling NaN", Reason.NOT_FINITE, struct.pack("<f", 0.7), signalling, confidence_score=0.7
    )
    yield episodes.broken("the zero below 0", None, confidence_score=-0.0)
    yield episodes.broken("an episode of 17 bits", Reason.OUT_OF_BOUNDS, episode_num=65_536)
    yield episodes.broken("a title of too many bytes", Reason.TOO_LONG, title="x" * 513)


def _decimals(bench: Maker) -> Iterator[Case]:
    """Yield cases about decimals of ten digits, six of them after the point."""
    for name, (octets, reason) in {
        "a digit too many": ((10**10).to_bytes(5, "big"), Reason.OUT_OF_BOUNDS),
        "a digit too many, below 0": ((-(10**10)).to_bytes(5, "big", signed=True), Reason.OUT_OF_BOUNDS),
        "three hundred bytes": (b"\x01" * 300, Reason.OUT_OF_BOUNDS),
        "three hundred bytes, below 0": (b"\x81" * 300, Reason.OUT_OF_BOUNDS),
        "below 0": (b"\xff", Reason.OUT_OF_BOUNDS),
        "no bytes": (b"", Reason.MALFORMED),
        "as wide as may be": ((10**10 - 1).to_bytes(5, "big"), None),
        "zeros before it": (bytes(40) + b"\x07", None),
    }.items():
        yield bench.broken(f"money: {name}", reason, cost_per_1k=octets)
    yield bench.broken("a throughput of NaN", Reason.NOT_FINITE, tokens_per_sec=math.nan)


def _writers(ui: Maker) -> Iterator[Case]:
    for name in WRITERS:
        value = frame_confluent(id_of(name), ui.body(name) + b"\0")
        yield ui.case(f"a registered schema: {name}", value, Reason.WRONG_SCHEMA)
    assert not set(WRITERS) & set(FOREIGN)


def _large(ui: Maker) -> Iterator[Case]:
    noise = random.Random(2).randbytes(900_000)
    forged: list[tuple[str, bytes | None]] = [
        ("chimera.error.reason", b"none"),
        ("chimera.error.attempts", b"9" * 5000),
    ]
    headers: dict[str, Any] = {
        "forged": forged,
        "of no text": [("\u0000", b"\xff\x00"), ("", None), ("ä" * 100, b"")],
        "a thousand": [(f"header-{number}", b"x" * 20) for number in range(1000)],
        "of almost a megabyte": [("large", noise)],
        "of many megabytes": [("zeros", bytes(8 * MIB)), ("large", noise[: MIB // 2])],
    }
    for name, some in headers.items():
        yield ui.case(f"headers, {name}, of a bad record", b"bad", Reason.UNFRAMED, headers=some)
        full = f"headers, {name}, of a good record"
        yield ui.case(full, ui.valid(full), None, headers=some)
    yield ui.case("a megabyte of noise", noise, Reason.UNFRAMED)
    yield ui.case("a valid record and megabytes behind it", ui.valid("large") + bytes(8 * MIB), Reason.OVERSIZE)
    yield ui.case("megabytes of a letter", b"x" * 16 * MIB, Reason.OVERSIZE)
    body = ui.body("claimed")
    claimed = body[: body.index(b"\x48")] + b"\x80\x80\x80\x10" + b"x" * (MIB - 100)
    yield ui.case("a text of a megabyte in the place of a UUID", ui.framed(claimed), Reason.TRUNCATED)
    assert len(claimed) + SINGLE_OBJECT_HEADER_BYTES < MIB
