"""Micro-batches from Kafka: the Faust transport `batch://`.

`Transport` is loaded when it is asked for, because only the worker needs Faust.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """`Transport`, the entry point of the group `faust.transports`."""
    if name != "Transport":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.transport.consumer import Transport  # noqa: PLC0415 (as above)

    return Transport
