"""Rejected records: each has its reason, and none delays another record."""

import io
import math
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fastavro
import orjson
import pytest
from support.events import as_stored, bag, events, publish, rows, settled
from support.processes import Worker, prepare
from support.raw_records import produce_with_header

from pipeline.catalog import Family
from pipeline.clickhouse.client import connect
from pipeline.config import Settings, env_name
from pipeline.errors import Reason
from pipeline.producer.encode import Encoder
from pipeline.schema.framing import (
    SINGLE_OBJECT_HEADER_BYTES,
    SINGLE_OBJECT_MARKER,
    frame_confluent,
    frame_single_object,
)

pytestmark = pytest.mark.integration

_SECRETS = {
    "session_id": "5ec4e700-5ec4-4e70-8ec4-e7005ec4e700",
    "commit_sha": "5ec4e7" + "0" * 34,
    "user_agent": "Secret/1.0 (Agent)",
    "metadata": '{"mail": "jo.public@example.org"}',
}


def unchecked(family: Family, event: Mapping[str, Any]) -> bytes:
    """Encode an event without checking it against the schema."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(dict(family.schema.raw)), event)
    return frame_single_object(family.schema.fingerprint, stream.getvalue())


def bad_values(family: Family, good: Mapping[str, Any]) -> list[tuple[Reason, bytes | None]]:
    """Reason and value of a record for each kind of rejection, without a registry; made from a valid event."""
    valid = Encoder(family).encode(good).value
    body = valid[SINGLE_OBJECT_HEADER_BYTES:]
    return [
        (Reason.TOMBSTONE, None),
        (Reason.EMPTY, b""),
        (Reason.UNFRAMED, body),
        (Reason.UNFRAMED, orjson.dumps(good)),
        (Reason.UNKNOWN_SCHEMA, SINGLE_OBJECT_MARKER + bytes(8) + body),
        (Reason.UNKNOWN_SCHEMA, frame_confluent(1, body)),  # there is no registry to ask
        (Reason.MALFORMED, valid[:SINGLE_OBJECT_HEADER_BYTES] + b"\xff" * 11 + body),
        (Reason.TRUNCATED, valid[:-1]),
        (Reason.TRUNCATED, valid[: len(valid) // 2]),
        (Reason.TRAILING_BYTES, valid + b"\0"),
        (Reason.INVALID_UTF8, valid.replace(b"Secret", b"\xff" * 6)),
        (Reason.INVALID_UUID, valid.replace(b"-8ec4-", b"-8xc4-")),
        (Reason.OUT_OF_BOUNDS, unchecked(family, {**good, "latency_ms": -1})),
        (Reason.OUT_OF_BOUNDS, unchecked(family, {**good, "latency_ms": 2**32})),
        (Reason.OUT_OF_BOUNDS, unchecked(family, {**good, "ts": -1})),
        (Reason.TOO_LONG, unchecked(family, {**good, "user_agent": good["user_agent"] * 100})),
        (Reason.NOT_IN_SET, unchecked(family, {**good, "event_type": "Secret/1.0"})),
        (Reason.INVALID_JSON, unchecked(family, {**good, "metadata": '["jo.public@example.org"]'})),
        (Reason.PATTERN_MISMATCH, unchecked(family, {**good, "commit_sha": "Secret/1.0"})),
    ]


def test_a_bad_record_is_rejected_and_its_neighbours_are_stored(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """The metric counts it by reason, and the log shows its coordinates without its content; no record waits for it."""
    family = prepare(settings).family("ui_events")
    good = {**events(family.name, 1)[0], **_SECRETS}
    bad = bad_values(family, good)
    neighbours = [{**good, "latency_ms": number} for number in range(len(bad) + 1)]
    values: list[bytes | None] = [Encoder(family).encode(neighbours[0]).value]
    for (_, value), neighbour in zip(bad, neighbours[1:], strict=True):
        values += [value, Encoder(family).encode(neighbour).value]
    publish(settings, family.topic.name, values)
    with Worker({**environ, env_name("log", "format"): "json"}, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, len(values))
        for reason, count in Counter(reason for reason, _ in bad).items():
            assert worker.metric("chimera_records_rejected_total", family=family.name, reason=reason) == count, reason
        assert worker.ready
        logged = [orjson.loads(line) for line in worker.lines("rejected")]
        text = worker.log
    assert bag(rows(settings, family.table)) == bag(as_stored(family, event) for event in neighbours)
    places = {2 * number + 1: reason for number, (reason, _) in enumerate(bad)}
    records = [line for line in logged if line["event"] == "record rejected"]
    assert {(line["topic"], line["partition"]) for line in records} == {(family.topic.name, 0)}
    assert all(places[line["offset"]] == line["reason"] for line in records)
    assert len(records) + sum(line.get("more", 0) for line in logged) == len(bad)
    for secret in ("Secret", "jo.public", *_SECRETS.values()):
        assert secret not in text


def test_nan_and_infinities_are_rejected(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """NaN and infinities would spoil every mean."""
    family = prepare(settings).family("episodes")
    good = [{**event, "confidence_score": 0.3} for event in events(family.name, 3)]
    values = [Encoder(family).encode(event).value for event in good]
    wrong = [
        value.replace(struct.pack("<f", 0.3), struct.pack("<f", number))
        for value, number in zip(values, (math.nan, math.inf, -math.inf), strict=True)
    ]
    publish(settings, family.topic.name, [*wrong, *values])
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, len(wrong) + len(good))
        assert worker.metric("chimera_records_rejected_total", reason=Reason.NOT_FINITE) == len(wrong)
    assert bag(rows(settings, family.table)) == bag(as_stored(family, event) for event in good)


def test_a_header_whose_name_is_no_text_stops_nothing(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """The broker accepts the header, compressed or not; the worker stores its record, and the records after it."""
    family = prepare(settings).family("ui_events")
    good = events(family.name, 6)
    values = [Encoder(family).encode(event).value for event in good]
    publish(settings, family.topic.name, values[:1])
    for number, compressed in enumerate((False, True)):
        some = [values[2 * number + 1], b"bad", values[2 * number + 2]]
        produce_with_header(settings.kafka, family.topic.name, some, b"\xff\xfe" * 8, compressed=compressed)
    publish(settings, family.topic.name, values[5:])
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, len(good) + 2)
        assert worker.metric("chimera_records_rejected_total", reason=Reason.UNFRAMED) == 2
    assert bag(rows(settings, family.table)) == bag(as_stored(family, event) for event in good)


def test_rows_that_clickhouse_refuses_are_found_and_rejected(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """Only the refused rows are rejected; all others of their micro-batch are stored, once."""
    family = prepare(settings).family("ui_events")
    with connect(settings.clickhouse) as client:
        client.execute("ALTER TABLE ui_events ADD CONSTRAINT odd CHECK latency_ms NOT IN (0, 4, 5, 99)")
    guilty, numbered = {0, 4, 5, 99}, [{**event, "latency_ms": at} for at, event in enumerate(events(family.name, 100))]
    publish(settings, family.topic.name, [Encoder(family).encode(event).value for event in numbered])
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, len(numbered))
        refused = worker.metric("chimera_records_rejected_total", reason=Reason.REFUSED_BY_CLICKHOUSE)
        assert refused == len(guilty)
        assert len(worker.lines("refused_by_clickhouse")) == len(guilty)
    innocent = [event for event in numbered if event["latency_ms"] not in guilty]
    assert bag(rows(settings, family.table)) == bag(as_stored(family, event) for event in innocent)
