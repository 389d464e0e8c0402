"""Chimera: from Kafka to ClickHouse.

The way of an event, by module:

    producer (convert, encode)  ─►  Kafka topic  ─►  transport  ─►  worker: one Faust agent a family
                                                                      │
    ClickHouse table  ◄─  sink (native)  ◄─  decode (validate)  ◄─  ingest  ─►  dead_letters

- transport: `broker` fetches and commits (`records` reads what aiokafka can't), `batches` cuts and keeps count,
  `ranges` is recorded beside the offset. It is a `takeover` of what others left, on top of `holding` what is ours;
  `batching` is what the app tells it.
- decode: `wire` reads the frame, `cursor` the fields, `resolve` brings old versions to the newest, `validate` checks;
  `vet` looks at registered schemas first, `reference` and `wellformed` read what isn't flat, `times` compares with the
  broker's. `columns` is what comes out.
- privacy: `declared` in the schemas, `sanitise` applies it to the valid rows before they leave decode.
- ingest: `brake` tells when too many are rejected; dlq/ is what `chimera dlq` does with dead letters.
- rollup/: an agent beside that of ui_events, which gets the same micro-batches, and derives session_stats from them.
- ingest and rollup try again by `attempts`, what fails, for as long as the partition is theirs.
- sink: `refusals` and `presence` look into what ClickHouse didn't take, and into what it says it has.
- before the start: `preflight`, with `contract` (tables and schemas) and `windows` (deduplication).

What is declared, and where: fields and bounds in schemas/avro (`schemas`, `compatibility`, `registry`), topics and
batch policy in topics.yaml (`families`, `topics`), tables in migrations/*.sql (`migrate`), the specification's queries
in queries.sql (`queries`), settings in `config`, kinds of failure in `errors`. How ClickHouse is reached is in
`clickhouse`, how Kafka is in `kafka_client`, `kafka_failures` and `tokens`, who may do what in `access`, how often
something is tried again in `backoff`, what is counted and logged in `metrics` and `logs`, what is served in `web`. The
`chimera` command is in cli/, a development machine's servers in devstack/, sample events in sample/; `demo` runs all.
"""

import sys
from typing import Any


def __getattr__(name: str) -> Any:
    """`app` is what `faust -A pipeline worker` runs; made when it is asked for, because only the worker needs Faust."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.errors import ChimeraError  # noqa: PLC0415 (as above)
    from pipeline.worker.app import create_app  # noqa: PLC0415

    try:
        app = create_app()
    except ChimeraError as error:
        print(f"chimera: {error}", file=sys.stderr)  # noqa: T201 (there is no log yet)
        sys.exit(error.exit_code)
    globals()["app"] = app
    return app
