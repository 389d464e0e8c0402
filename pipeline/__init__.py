"""Chimera: a pipeline of events from Kafka to ClickHouse.

The packages, along the way of an event:

    producer ─► Kafka ─► transport ─► worker (decode, privacy, clickhouse) ─► ClickHouse
                                        ├─ dlq: dead letters
                                        └─ rollup: session_stats

`schema` and `catalog` read the declarations of events and topics; `kafka` has the clients that several packages use.
`cli` is the `chimera` command; `devstack` and `sample` serve development. docs/architecture.md follows an event through
the files, and says where a change goes and which package may import which.
"""

import gc
import os
import sys
from typing import Any


def __getattr__(name: str) -> Any:
    """Return `app`, which `faust -A pipeline worker` runs. It is made on first use: only the worker needs Faust."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _open_closed_streams()
    gc.disable()  # almost nothing of an import is garbage: to look for it takes a sixth of the start
    from pipeline.errors import ChimeraError  # noqa: PLC0415 (as above)
    from pipeline.logs import accept_any_text, report_failure  # noqa: PLC0415
    from pipeline.worker.app import create_app  # noqa: PLC0415

    accept_any_text()
    try:
        app = create_app()
    except ChimeraError as error:
        report_failure(error)
        sys.exit(error.exit_code)
    gc.enable()
    globals()["app"] = app
    return app


def _open_closed_streams() -> None:
    """Let the standard streams that the caller has closed lead nowhere; libraries expect them when they are imported.

    Each gets its own number again, which a connection would get otherwise.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nowhere, mode, encoding="utf-8"))
