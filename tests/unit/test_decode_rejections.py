"""Rejected records: one for each reason, alone and among good neighbours."""

import pytest
from support import oracle
from support.avro_cases import encode, make_family, record
from support.decoding import BODY, FAMILY, FINGERPRINT, ROW, good

from pipeline.columns import DictionaryColumn
from pipeline.config import ValidationSettings
from pipeline.decode.decoder import Decoder
from pipeline.errors import Reason
from pipeline.schema.framing import frame_confluent, frame_single_object


def patched(start: int, stop: int, filling: bytes) -> bytes:
    """The good record with other bytes at `start` to `stop` of its body."""
    return frame_single_object(FINGERPRINT, BODY[:start] + filling + BODY[stop:])


# The body begins: count (1 byte), ratio (4), open (1), length of id (1), id (36).
REJECTED = {
    "null": (None, Reason.TOMBSTONE),
    "empty": (b"", Reason.EMPTY),
    "oversize": (good() + bytes(1 << 20), Reason.OVERSIZE),
    "oversize-and-unframed": (bytes((1 << 20) + 1), Reason.OVERSIZE),
    "bare-avro": (BODY, Reason.UNFRAMED),
    "marker-only": (b"\xc3\x01" + FINGERPRINT[:7], Reason.UNFRAMED),
    "magic-only": (b"\x00\x00\x00\x00", Reason.UNFRAMED),
    "json": (b'{"count": 7}', Reason.UNFRAMED),
    "unknown-fingerprint": (frame_single_object(b"nobody's", BODY), Reason.UNKNOWN_SCHEMA),
    "id-without-registry": (frame_confluent(1, BODY), Reason.UNKNOWN_SCHEMA),
    "header-only": (frame_single_object(FINGERPRINT, b""), Reason.TRUNCATED),
    "cut": (good()[:-1], Reason.TRUNCATED),
    "length-beyond-the-end": (patched(6, 7, b"\x80\x40"), Reason.TRUNCATED),
    "length-beyond-all-memory": (patched(6, 7, b"\xfe" + b"\xff" * 8 + b"\x01"), Reason.TRUNCATED),
    "varint-without-end": (frame_single_object(FINGERPRINT, b"\x80" * 9), Reason.TRUNCATED),
    "varint-of-eleven-bytes": (patched(0, 1, b"\x80" * 10 + b"\x01"), Reason.MALFORMED),
    "varint-over-64-bits": (patched(0, 1, b"\xff" * 9 + b"\x02"), Reason.MALFORMED),
    "varint-in-too-many-bytes": (patched(0, 1, b"\x8e\x00"), Reason.MALFORMED),
    "int-over-32-bits": (patched(0, 1, b"\x80\x80\x80\x80\x10"), Reason.MALFORMED),
    "negative-length": (patched(6, 7, b"\x01"), Reason.MALFORMED),
    "boolean-of-2": (patched(5, 6, b"\x02"), Reason.MALFORMED),
    "decimal-without-bytes": (good(price=b""), Reason.MALFORMED),
    "trailing-byte": (good() + b"\0", Reason.TRAILING_BYTES),
    "two-records-in-one": (good() + BODY, Reason.TRAILING_BYTES),
    "latin-1": (frame_single_object(FINGERPRINT, BODY.replace("größ".encode(), b"gr\xf6\xdf??")), Reason.INVALID_UTF8),
    "surrogate": (
        frame_single_object(FINGERPRINT, BODY.replace("größ".encode(), b"\xed\xa0\x80abc")),
        Reason.INVALID_UTF8,
    ),
    "nul": (good(note="a\0b"), Reason.NUL_BYTE),
    "nul-in-a-pattern": (good(slug="one\0"), Reason.NUL_BYTE),
    "nul-in-one-class": (good(sha="0123abc\0"), Reason.NUL_BYTE),
    "nul-in-a-set": (good(kind="open\0"), Reason.NUL_BYTE),
    "nul-in-a-uuid": (good(id="6d9a30c2-15fe-4b7d-a2c8-0e74b95f1d3\0"), Reason.NUL_BYTE),
    "uuid-in-braces": (good(id="{6d9a30c2-15fe-4b7d-a2c8-0e74b95f1d36}"), Reason.INVALID_UUID),
    "uuid-without-dashes": (good(id="6d9a30c215fe4b7da2c80e74b95f1d36"), Reason.INVALID_UUID),
    "uuid-with-a-misplaced-dash": (good(id="6d9a30c-215fe-4b7d-a2c8-0e74b95f1d36"), Reason.INVALID_UUID),
    "uuid-with-another-letter": (good(id="6d9a30c2-15fe-4b7d-a2c8-0e74b95f1d3g"), Reason.INVALID_UUID),
    "nan": (good(ratio=float("nan")), Reason.NOT_FINITE),
    "infinity": (good(ratio=float("-inf")), Reason.NOT_FINITE),
    "above-the-maximum": (good(count=11), Reason.OUT_OF_BOUNDS),
    "below-the-minimum": (good(count=-1), Reason.OUT_OF_BOUNDS),
    "negative-price": (good(price=b"\xff"), Reason.OUT_OF_BOUNDS),
    "too-many-digits": (good(price=(10_000).to_bytes(2, "big")), Reason.OUT_OF_BOUNDS),
    "digits-by-the-hundred": (good(price=b"\x01" * 300), Reason.OUT_OF_BOUNDS),
    "over-the-length-in-bytes": (good(note="größe"), Reason.TOO_LONG),
    "not-in-the-set": (good(kind="Open"), Reason.NOT_IN_SET),
    "prefix-of-one-in-the-set": (good(kind="ope"), Reason.NOT_IN_SET),
    "pattern": (good(slug="one_two"), Reason.PATTERN_MISMATCH),
    "pattern-and-a-newline": (good(slug="one\n"), Reason.PATTERN_MISMATCH),
    "upper-case-commit": (good(sha="0123ABCD"), Reason.PATTERN_MISMATCH),
    "short-commit": (good(sha="0123abc"), Reason.PATTERN_MISMATCH),
    "long-commit": (good(sha="0123abcde"), Reason.PATTERN_MISMATCH),
}


@pytest.mark.parametrize(("value", "reason"), REJECTED.values(), ids=REJECTED)
def test_a_bad_record_is_rejected_with_its_reason_and_spoils_no_neighbour(value: bytes | None, reason: Reason) -> None:
    """The good records before and after it become their usual rows."""
    rows = Decoder(FAMILY).decode([good(), value, good(count=3)])
    assert [(rejection.position, rejection.reason) for rejection in rows.rejections] == [(1, reason)]
    assert rows.positions.tolist() == [0, 2]
    assert oracle.rows_of(rows) == [ROW, ROW | {"count": 3}]


def test_every_reason_that_decoding_gives_has_an_example() -> None:
    """The table above lacks only ClickHouse's reasons, and the reasons about schemas and JSON, tested elsewhere."""
    shown = {reason for _, reason in REJECTED.values()}
    of_clickhouse = {Reason.REFUSED_BY_CLICKHOUSE, Reason.EXPIRED}
    assert {Reason.WRONG_SCHEMA, Reason.INVALID_JSON, *of_clickhouse} == set(Reason) - shown


def test_bad_records_together_get_the_same_reasons_as_alone() -> None:
    """The columns keep nothing of rejected records: a dictionary holds values of valid rows only."""
    rows = Decoder(FAMILY).decode([value for value, _ in REJECTED.values()] + [good()])
    assert [rejection.reason for rejection in rows.rejections] == [reason for _, reason in REJECTED.values()]
    assert oracle.rows_of(rows) == [ROW]
    slugs = rows.columns["slug"]
    assert isinstance(slugs, DictionaryColumn)
    assert slugs.values == [b"one-two"]


_DAY_MS = 86_400_000
_NOW = 1_767_225_600_000
_TIMED = make_family([record([{"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}, "min": 0}])])


@pytest.mark.parametrize(
    ("ahead_ms", "written", "limits", "accepted"),
    [
        pytest.param(_DAY_MS, _NOW, {}, True, id="a-day-ahead"),
        pytest.param(_DAY_MS + 1, _NOW, {}, False, id="more"),
        pytest.param(1, _NOW, {"max_ahead_seconds": 0}, False, id="ahead-of-none"),
        pytest.param(-_NOW, _NOW, {}, True, id="as-old-as-can-be"),
        pytest.param(-5000, _NOW, {"max_behind_seconds": 5}, True, id="just-young-enough"),
        pytest.param(-5001, _NOW, {"max_behind_seconds": 5}, False, id="too-old"),
        pytest.param(_NOW, -1, {}, False, id="a-record-without-a-timestamp"),
        pytest.param(_NOW, -1, {"max_ahead_seconds": 1e10}, True, id="a-record-without-and-no-limit"),
        pytest.param(-(2**63) + 5, 2**63 - 1, {}, True, id="a-record-of-the-last-day"),
        pytest.param(2**63, -(2**63), {}, False, id="a-record-of-the-first-day"),
    ],
)
def test_the_distance_of_an_event_from_its_record_is_limited(
    ahead_ms: int, written: int, limits: dict[str, float], accepted: bool
) -> None:
    """Limits count whole milliseconds and hold for all 64-bit numbers; each record has its own timestamp."""
    decoder = Decoder(_TIMED, validation=ValidationSettings(**limits))
    values = [
        frame_single_object(_TIMED.schema.fingerprint, encode(_TIMED.schema.raw, {"ts": ts}))
        for ts in (_NOW, max(written + ahead_ms, 0), _NOW)
    ]
    rows = decoder.decode(values, [_NOW, written, _NOW])
    assert [(rejection.position, rejection.reason) for rejection in rows.rejections] == (
        [] if accepted else [(1, Reason.OUT_OF_BOUNDS)]
    )
    assert len(decoder.decode([None, *values], [written, _NOW, written, _NOW])) == len(rows)
