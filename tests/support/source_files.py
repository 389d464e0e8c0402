"""Files of records for tests: Avro container files and raw dumps."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fastavro

from pipeline.catalog import Family
from pipeline.config import Settings
from pipeline.kafka.offsets import TopicReader, offset_of
from pipeline.kafka.topics import TopicAdmin
from pipeline.operations.lineage.dump import DumpedRecord, dumped_line
from support.records import TOPIC_ID


def plain(schema: Any) -> Any:
    """Return a schema without logical types, so that fastavro takes values as the project's events have them."""
    if isinstance(schema, Mapping):
        return {name: plain(part) for name, part in schema.items() if name != "logicalType"}
    return [plain(part) for part in schema] if isinstance(schema, list) else schema


def write_avro(
    path: Path, schema: Any, values: Iterable[Any], codec: str = "deflate", block_bytes: int = 2_000
) -> Path:
    """Write a container file of small blocks; the values are those of the primitive types."""
    with path.open("wb") as file:
        fastavro.writer(file, fastavro.parse_schema(plain(schema)), values, codec, sync_interval=block_bytes)
    return path


def avro_values(family: Family, events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return events as values of primitive types, defaults filled in; for families without decimals."""
    defaults = {field.name: field.default for field in family.schema.fields if not field.required}
    return [defaults | dict(event) for event in events]


def write_dump(path: Path, records: Iterable[DumpedRecord]) -> Path:
    """Write a raw dump."""
    path.write_bytes(b"".join(map(dumped_line, records)))
    return path


def dump_topic(settings: Settings, topic: str, path: Path) -> Path:
    """Write a raw dump of all records that a topic has."""
    topic_id = TopicAdmin(settings.kafka).ids([topic])[topic]
    with TopicReader(settings.kafka, topic) as reader:
        messages = list(reader.read(reader.ranges()))
    return write_dump(
        path,
        [
            DumpedRecord(
                topic,
                topic_id,
                int(message.partition() or 0),
                offset_of(message),
                message.timestamp()[1],
                _bytes(message.key()),
                _bytes(message.value()),
            )
            for message in messages
        ],
    )


def _bytes(value: str | bytes | None) -> bytes | None:
    assert not isinstance(value, str)
    return value


def dumped(
    values: Sequence[bytes | None],
    topic: str = "old",
    topic_id: str | None = TOPIC_ID,
    partition: int = 0,
    first: int = 0,
) -> list[DumpedRecord]:
    """Return records with successive offsets."""
    return [
        DumpedRecord(topic, topic_id, partition, first + at, 1_769_817_600_000, None, value)
        for at, value in enumerate(values)
    ]
