"""Chimera: from Kafka to ClickHouse.

The way of an event, by module:

    producer (encode)  ─►  Kafka topic  ─►  transport (batches)  ─►  worker: one Faust agent a family
                                                                       │
    ClickHouse table  ◄─  sink (native)  ◄─  validate  ◄─  decode  ◄─  ingest

What is declared, and where: fields and bounds in schemas/avro (`schemas`), topics and batch policy in topics.yaml
(`families`), tables in migrations/*.sql (`migrate`), settings in `config`, kinds of failure in `errors`.
"""

import sys
from typing import Any


def __getattr__(name: str) -> Any:
    """`app` is what `faust -A pipeline worker` runs; made when it is asked for, because only the worker needs Faust."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.errors import ChimeraError  # noqa: PLC0415 (as above)
    from pipeline.worker import create_app  # noqa: PLC0415

    try:
        app = create_app()
    except ChimeraError as error:
        print(f"chimera: {error}", file=sys.stderr)  # noqa: T201 (there is no log yet)
        sys.exit(error.exit_code)
    globals()["app"] = app
    return app
