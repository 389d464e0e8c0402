"""The worker end to end: published events are in their tables unchanged, however they were written."""

import io
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastavro
import orjson
import pytest
from support.events import as_stored, bag, events, publish, rows, settled
from support.processes import Worker, prepare
from support.schema_registry import RegistryServer

from pipeline.catalog import Family
from pipeline.clickhouse.client import connect
from pipeline.config import Settings, env_name, load_settings
from pipeline.errors import Reason
from pipeline.kafka.registry import SchemaRegistry
from pipeline.producer.encode import Encoder
from pipeline.producer.producer import Producer
from pipeline.schema.framing import SINGLE_OBJECT_HEADER_BYTES, frame_confluent

pytestmark = [pytest.mark.integration, pytest.mark.cold]

_EVENTS = 300


def test_events_of_all_families_arrive_as_they_were(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """Every field of every event: money to the last digit, times to the millisecond, floats in single precision."""
    catalog = prepare(settings)
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        with Producer(settings, catalog) as producer:
            for family in catalog.families:
                for event in events(family.name, _EVENTS):
                    producer.send(family.name, event)
        for family in catalog.families:
            settled(worker, settings, family, _EVENTS)
            expected = [as_stored(family, event) for event in events(family.name, _EVENTS)]
            assert bag(rows(settings, family.table)) == bag(expected), family.name
            assert worker.metric("chimera_records_consumed_total", family=family.name) == _EVENTS
        assert worker.metric("chimera_records_rejected_total") == 0
        assert worker.terminate() == 0


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "numpy"])
def test_every_codec_is_read(settings: Settings, environ: dict[str, str], tmp_path: Path, *, compiled: bool) -> None:
    """The worker reads every compression of Kafka, and says so if numpy does it alone."""
    environ |= {env_name("worker", "compiled_core"): str(compiled)}
    family = prepare(settings).family("ui_events")
    codecs = ("none", "gzip", "lz4", "snappy", "zstd")
    each = events(family.name, _EVENTS)
    encoder = Encoder(family)
    for codec in codecs:
        publish(settings, family.topic.name, [encoder.encode(event).value for event in each], codec)
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, len(codecs) * len(each))
        assert len(worker.lines("the compiled core isn't used")) == (not compiled)
    assert bag(rows(settings, family.table)) == bag([as_stored(family, event) for event in each] * len(codecs))


def test_schemas_come_from_the_registry(
    settings: Settings, environ: dict[str, str], tmp_path: Path, schema_registry: RegistryServer
) -> None:
    """Ids of the registry are enough; unknown ones and other families' are rejected; a silent registry rejects none."""
    catalog = prepare(settings)
    family, other = catalog.family("ui_events"), catalog.family("llm_events")
    environ = {
        **environ,
        env_name("registry", "url"): schema_registry.url,
        env_name("registry", "timeout_seconds"): "1",
        env_name("worker", "retry_backoff_max_seconds"): "1",
    }
    registry = SchemaRegistry(settings.registry.model_copy(update={"url": schema_registry.url}))
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


def test_an_amount_is_read_by_the_scale_that_stands_beside_its_union(
    settings: Settings, environ: dict[str, str], tmp_path: Path, schema_registry: RegistryServer
) -> None:
    """Avro ignores a logical type in that place, but the writer means it; another scale is rejected."""
    family = prepare(settings).family("bench_runs")
    address = settings.registry.model_copy(update={"url": schema_registry.url})
    event = events(family.name, 1)[0]
    body = Encoder(family).encode(event).value[SINGLE_OBJECT_HEADER_BYTES:]
    values = []
    for scale in (2, 6):
        beside = {"type": ["null", "bytes"], "logicalType": "decimal", "precision": 10, "scale": scale}
        fields = [field | beside if _is_decimal(field) else field for field in family.schema.raw["fields"]]
        writer = replace(family.schema, raw={**family.schema.raw, "fields": fields})
        schema_id = SchemaRegistry(address).schema_id(f"{family.topic.name}-{scale}", writer)
        values.append(frame_confluent(schema_id, _with_unions(family, body)))
    publish(settings, family.topic.name, values)
    with Worker({**environ, env_name("registry", "url"): schema_registry.url}, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, len(values))
        assert worker.metric("chimera_records_rejected_total", reason=Reason.WRONG_SCHEMA) == 1
    assert bag(rows(settings, family.table)) == bag([as_stored(family, event)])


def _is_decimal(field: Mapping[str, Any]) -> bool:
    return isinstance(field["type"], dict) and field["type"].get("logicalType") == "decimal"


def _with_unions(family: Family, body: bytes) -> bytes:
    """Write a record again with each amount as the second branch of a union."""
    plain = [{"name": field.name, "type": field.type} for field in family.schema.fields]
    record = {"type": "record", "name": family.name}
    values = fastavro.schemaless_reader(io.BytesIO(body), fastavro.parse_schema({**record, "fields": plain}), None)
    amounts = {field.name for field in family.schema.fields if field.logical_type == "decimal"}
    unions = [field | {"type": ["null", "bytes"]} if field["name"] in amounts else field for field in plain]
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema({**record, "fields": unions}), values)
    return stream.getvalue()


def test_an_older_version_is_resolved_to_the_newest(
    settings: Settings, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of version 1 gets the default of the field that version 2 adds."""
    old = prepare(settings).family("watcher_runs")
    directory = tmp_path / "schemas"
    shutil.copytree(settings.schemas.directory, directory)
    newer = dict(old.schema.raw)
    newer["fields"] = [*newer["fields"], {"name": "note", "type": "string", "privacy": "text", "default": "none"}]
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
