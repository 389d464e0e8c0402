"""Micro-batches from Kafka: the Faust transport `batch://`.

Start with `member.py`, which puts the parts together. `consumer.py` fits them into Faust, and `adapter/` makes their
requests with aiokafka. All other modules need neither Faust nor a broker.

`Transport` is imported on first use, because only the worker needs Faust.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """Import `Transport`, the entry point of the group `faust.transports`."""
    if name != "Transport":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.transport.consumer import Transport  # noqa: PLC0415 (as above)

    return Transport
