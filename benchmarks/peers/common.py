"""What the peers share: where things are, how a record is decoded with fastavro, how rows are inserted.

The environment is the worker's own, plus BENCH_TOPIC, so that every contender is started the same way.
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
"""Longest time a peer lets rows wait for a batch to fill; less measured no faster."""

# Confluent framing: a magic byte and a 4-byte schema id. The topic has one schema, so the id needn't be looked up.
_FRAME_BYTES = 5

Row = dict[str, Any]


def connect() -> Client:
    """A client whose inserts are stored when `execute` returns: the batches are ours, not the server's to collect."""
    return Client(
        os.environ["CHIMERA_CLICKHOUSE__HOST"],
        port=int(os.environ["CHIMERA_CLICKHOUSE__PORT"]),
        database=DATABASE,
        settings={"async_insert": 0},
    )


class Decoder:
    """Decodes framed records with fastavro: a datetime for `ts`, a UUID for `session_id`, as its users get them."""

    def __init__(self) -> None:
        with urlopen(f"{REGISTRY}/schemas/ids/1") as answer:
            self._schema = fastavro.parse_schema(json.loads(json.load(answer)["schema"]))

    def __call__(self, value: bytes) -> Row:
        """One record as a row."""
        body = BytesIO(value)
        body.seek(_FRAME_BYTES)
        row: Row = fastavro.schemaless_reader(body, self._schema, None)  # type: ignore[assignment]
        return row


class Table:
    """The table `ui_events`; rows are inserted as clickhouse-driver takes them from the decoder, as dictionaries."""

    def __init__(self) -> None:
        self._client = connect()

    def insert(self, rows: list[Row]) -> None:
        """Store the rows; returns when they are."""
        if rows:
            self._client.execute(f"INSERT INTO ui_events ({', '.join(rows[0])}) VALUES", rows)
