"""Events for tests, the rows that they must become, and a wait until all are stored."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
from confluent_kafka import Producer

from pipeline.catalog import Family
from pipeline.clickhouse.client import connect
from pipeline.columns import DictionaryColumn, Rows
from pipeline.config import Settings
from pipeline.devstack.stack import DEVELOPMENT_HASH_KEY
from pipeline.kafka.client import client_config
from pipeline.privacy.hashing import Hasher
from pipeline.privacy.sanitise import Sanitiser
from pipeline.producer.sample import sample
from pipeline.schema.fields import Field
from support.processes import Worker, lag

_START = datetime(2026, 1, 31, tzinfo=UTC)
_SECONDS = 120.0


def events(family: str, count: int) -> list[dict[str, Any]]:
    """Return events of a family; the same ones each time."""
    return [event for _, event in sample(count, seed=7, start=_START, hours=1, families=[family])]


def rows(settings: Settings, table: str) -> list[dict[str, Any]]:
    """Return all rows of a table, with `ts` in milliseconds."""
    with connect(settings.clickhouse) as client:
        values, columns = client.execute(
            f"SELECT * REPLACE(toUnixTimestamp64Milli(ts) AS ts) FROM {table}", with_column_types=True
        )
    return [dict(zip((name for name, _ in columns), row, strict=True)) for row in values]


def as_stored(family: Family, event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row that an event must become, in a worker with the development stack's hash key."""
    values = {field.name: event.get(field.name, field.default) for field in family.schema.fields}
    private = [field.name for field in family.schema.fields if field.privacy]
    texts = {name: DictionaryColumn.encode([values[name].encode()]) for name in private}
    sanitise = Sanitiser(family.schema, Hasher(DEVELOPMENT_HASH_KEY.encode()))
    treated: Any = sanitise(Rows({**texts}, np.zeros(1, np.int64), ())).columns
    values |= {name: column.to_list()[0].decode() for name, column in treated.items()}
    return {field.name: _as_stored(field, values[field.name]) for field in family.schema.fields}


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
    """Return the number of each row."""
    return Counter(frozenset(row.items()) for row in rows)


def publish(settings: Settings, topic: str, values: Iterable[bytes | None], codec: str = "none") -> None:
    """Send values of any bytes to the first partition."""
    producer = Producer({**client_config(settings.kafka), "compression.type": codec, "linger.ms": 50})
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(_SECONDS) == 0


def settled(worker: Worker, settings: Settings, family: Family, records: int) -> None:
    """Wait until exactly this number of a family's records is stored or rejected, and all are committed."""

    def done() -> bool:
        stored = worker.metric("chimera_rows_inserted_total", family=family.name)
        rejected = worker.metric("chimera_records_rejected_total", family=family.name)
        return stored + rejected == records

    worker.wait_for(done, f"{records} records of {family.name} stored or rejected")
    worker.wait_for(lambda: lag(settings, family.topic.name) == 0, f"{family.name} committed up to the end")
