"""Code of all peers: addresses, decoding with fastavro, and inserts with clickhouse-driver.

The environment has the worker's variables and BENCH_TOPIC, so every contender is started the same way.
"""

import json
import os
from io import BytesIO
from typing import Any
from urllib.request import urlopen

import fastavro
from clickhouse_driver import Client

BROKERS = os.environ["CHIMERA_KAFKA__BOOTSTRAP_SERVERS"]
GROUP = os.environ["CHIMERA_KAFKA__GROUP_ID"]
TOPIC = os.environ["BENCH_TOPIC"]
REGISTRY = os.environ["CHIMERA_REGISTRY__URL"]
DATABASE = os.environ["CHIMERA_CLICKHOUSE__DATABASE"]

LINGER_SECONDS = 1.0
"""Longest time that rows wait for a batch to fill; shorter times were no faster."""

# Confluent framing: a magic byte and a 4-byte schema id. The topic has one schema, so peers ignore the id.
_FRAME_BYTES = 5

Row = dict[str, Any]


def connect() -> Client:
    """Return a client whose inserts are stored when `execute` returns: the server collects no batches of its own."""
    return Client(
        os.environ["CHIMERA_CLICKHOUSE__HOST"],
        port=int(os.environ["CHIMERA_CLICKHOUSE__PORT"]),
        database=DATABASE,
        settings={"async_insert": 0},
    )


class Decoder:
    """Decoder with fastavro; it gives a datetime for `ts` and a UUID for `session_id`, as fastavro's users get them."""

    def __init__(self) -> None:
        with urlopen(f"{REGISTRY}/schemas/ids/1") as answer:
            self._schema = fastavro.parse_schema(json.loads(json.load(answer)["schema"]))

    def __call__(self, value: bytes) -> Row:
        """Decode one record to a row."""
        body = BytesIO(value)
        body.seek(_FRAME_BYTES)
        row: Row = fastavro.schemaless_reader(body, self._schema, None)  # type: ignore[assignment]
        return row


class Table:
    """Table `ui_events`; clickhouse-driver inserts the decoder's dictionaries unchanged."""

    def __init__(self) -> None:
        self._client = connect()

    def insert(self, rows: list[Row]) -> None:
        """Insert the rows; return when they are stored."""
        if rows:
            self._client.execute(f"INSERT INTO ui_events ({', '.join(rows[0])}) VALUES", rows)
