"""The worker end to end: what is published is in its table as it was, or rejected with a reason, whatever comes."""

import io
import math
import shutil
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import numpy as np
import orjson
import pytest
from confluent_kafka import Producer as KafkaProducer
from processes import Worker, lag, prepare
from schema_registry import SchemaRegistry

from pipeline.clickhouse import connect
from pipeline.config import Settings, env_name, load_settings
from pipeline.encode import Encoder
from pipeline.errors import Reason
from pipeline.families import Family
from pipeline.producer import Producer
from pipeline.registry import Registry
from pipeline.sample import sample
from pipeline.schemas import Field
from pipeline.wire import SINGLE_OBJECT_HEADER_BYTES, SINGLE_OBJECT_MARKER, frame_confluent, frame_single_object

pytestmark = pytest.mark.integration

_EVENTS = 300
_START = datetime(2026, 1, 31, tzinfo=UTC)
_SECRETS = {
    "session_id": "5ec4e700-5ec4-4e70-8ec4-e7005ec4e700",
    "commit_sha": "5ec4e7" + "0" * 34,
    "user_agent": "Secret/1.0 (Agent)",
    "metadata": '{"mail": "jo.public@example.org"}',
}


def events(family: str, count: int = _EVENTS) -> list[dict[str, Any]]:
    return [event for _, event in sample(count, seed=7, start=_START, hours=1, families=[family])]


def rows(settings: Settings, table: str) -> list[dict[str, Any]]:
    """All rows of a table, with `ts` in milliseconds."""
    with connect(settings.clickhouse) as client:
        values, columns = client.execute(
            f"SELECT * REPLACE(toUnixTimestamp64Milli(ts) AS ts) FROM {table}", with_column_types=True
        )
    return [dict(zip((name for name, _ in columns), row, strict=True)) for row in values]


def as_stored(family: Family, event: Mapping[str, Any]) -> dict[str, Any]:
    """The row that an event must become."""
    return {field.name: _as_stored(field, event.get(field.name, field.default)) for field in family.schema.fields}


def _as_stored(field: Field, value: Any) -> Any:
    match field.logical_type or field.type:
        case "uuid":
            return UUID(value)
        case "decimal":
            return Decimal(str(value))
        case "float":
            return float(np.float32(value))
    return value


def bag(rows: Iterable[Mapping[str, Any]]) -> Counter[Any]:
    """Rows and how often they are there, without an order."""
    return Counter(frozenset(row.items()) for row in rows)


def publish(settings: Settings, topic: str, values: Iterable[bytes | None], codec: str = "none") -> None:
    """Send these bytes, whatever they are, to the first partition."""
    producer = KafkaProducer({**settings.kafka.client, "compression.type": codec, "linger.ms": 50})
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(30) == 0


def unchecked(family: Family, event: Mapping[str, Any]) -> bytes:
    """The record of an event that may break what the schema declares."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(dict(family.schema.raw)), event)
    return frame_single_object(family.schema.fingerprint, stream.getvalue())


def settled(worker: Worker, settings: Settings, family: Family, records: int) -> None:
    """Wait until so many records of a family are stored or rejected, no fewer and no more, and committed."""

    def done() -> bool:
        stored = worker.metric("chimera_rows_inserted_total", family=family.name)
        rejected = worker.metric("chimera_records_rejected_total", family=family.name)
        return stored + rejected == records

    worker.wait_for(done, f"{records} records of {family.name} stored or rejected")
    worker.wait_for(lambda: lag(settings, family.topic.name) == 0, f"{family.name} committed up to the end")


def test_events_of_all_families_arrive_as_they_were(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """Every field of every event: money to the last digit, times to the millisecond, floats in single precision."""
    catalog = prepare(settings)
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        with Producer(settings, catalog) as producer:
            for family in catalog.families:
                for event in events(family.name):
                    producer.send(family.name, event)
        for family in catalog.families:
            settled(worker, settings, family, _EVENTS)
            expected = [as_stored(family, event) for event in events(family.name)]
            assert bag(rows(settings, family.table)) == bag(expected), family.name
            assert worker.metric("chimera_records_consumed_total", family=family.name) == _EVENTS
        assert worker.metric("chimera_records_rejected_total") == 0
        assert worker.terminate() == 0


def test_every_codec_is_read(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """Whatever a producer compresses with."""
    family = prepare(settings).family("ui_events")
    codecs = ("none", "gzip", "lz4", "snappy", "zstd")
    each = events(family.name)
    encoder = Encoder(family)
    for codec in codecs:
        publish(settings, family.topic.name, [encoder.encode(event).value for event in each], codec)
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, len(codecs) * len(each))
    assert bag(rows(settings, family.table)) == bag([as_stored(family, event) for event in each] * len(codecs))


def bad_values(family: Family, good: Mapping[str, Any]) -> list[tuple[Reason, bytes | None]]:
    """A record for every way to be wrong without a registry, each made from a valid event."""
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
        (Reason.PATTERN_MISMATCH, unchecked(family, {**good, "commit_sha": "Secret/1.0"})),
    ]


def test_a_bad_record_is_rejected_and_its_neighbours_are_stored(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """Counted by its reason and logged by its place, without a word of what it holds; nothing waits for it."""
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


def test_a_number_that_is_none_is_rejected(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
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


def test_schemas_come_from_the_registry(
    settings: Settings, environ: dict[str, str], tmp_path: Path, schema_registry: SchemaRegistry
) -> None:
    """Its ids are enough; an unknown one or another family's is rejected, and while it is silent nothing is."""
    catalog = prepare(settings)
    family, other = catalog.family("ui_events"), catalog.family("llm_events")
    environ = {
        **environ,
        env_name("registry", "url"): schema_registry.url,
        env_name("registry", "timeout_seconds"): "1",
        env_name("worker", "retry_backoff_max_seconds"): "1",
    }
    registry = Registry(settings.registry.model_copy(update={"url": schema_registry.url}))
    known, others = (registry.schema_id(each.topic.name, each.schema) for each in (family, other))
    first, second = events(family.name, 2)
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        schema_registry.pause()
        try:
            publish(settings, family.topic.name, [Encoder(family, known).encode(first).value])
            worker.wait_for(lambda: worker.waiting, "not ready while the registry is silent")
            assert worker.metric("chimera_retries_total", family=family.name) > 0
            assert worker.metric("chimera_records_rejected_total") == 0
        finally:
            schema_registry.resume()
        settled(worker, settings, family, 1)
        assert worker.ready
        body = Encoder(other).encode(events(other.name, 1)[0]).value[SINGLE_OBJECT_HEADER_BYTES:]
        values = [frame_confluent(others, body), frame_confluent(2**31 - 1, body)]
        publish(settings, family.topic.name, [*values, Encoder(family).encode(second).value])
        settled(worker, settings, family, 4)
        for reason in (Reason.WRONG_SCHEMA, Reason.UNKNOWN_SCHEMA):
            assert worker.metric("chimera_records_rejected_total", reason=reason) == 1
    assert bag(rows(settings, family.table)) == bag(as_stored(family, event) for event in (first, second))


def test_an_older_version_is_resolved_to_the_newest(
    settings: Settings, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of version 1 gets the default of the field that version 2 adds."""
    old = prepare(settings).family("watcher_runs")
    directory = tmp_path / "schemas"
    shutil.copytree(settings.schemas.directory, directory)
    newer = dict(old.schema.raw)
    newer["fields"] = [*newer["fields"], {"name": "note", "type": "string", "max_length": 64, "default": "none"}]
    (directory / "watcher_runs.v2.avsc").write_bytes(orjson.dumps(newer))
    with connect(settings.clickhouse) as client:
        client.execute("ALTER TABLE watcher_runs ADD COLUMN note String")
    environ = {**environ, env_name("schemas", "directory"): str(directory)}
    monkeypatch.setenv(env_name("schemas", "directory"), str(directory))
    new = prepare(load_settings()).family("watcher_runs")
    first, second = events(old.name, 2)
    second["note"] = "new"
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        values = [Encoder(old).encode(first).value, Encoder(new).encode(second).value]
        publish(settings, new.topic.name, values)
        settled(worker, settings, new, 2)
    expected = [as_stored(new, {**first, "note": "none"}), as_stored(new, second)]
    assert bag(rows(settings, new.table)) == bag(expected)


def test_rows_that_clickhouse_refuses_are_found_and_rejected(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """The guilty ones alone; all others of their micro-batch are stored, once."""
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
