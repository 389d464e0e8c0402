"""Repeat a request until the broker answers."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeVar

from pipeline.errors import HaltError, UnavailableError
from pipeline.transport.context import Context

KAFKA = "Kafka"
"""Part of the broker's troubles."""
PARTITIONS = "partitions"
"""Part of the troubles with the assignment."""

T = TypeVar("T")


async def until_answered(ask: Callable[[], Awaitable[T]], wanted: Callable[[], bool], context: Context) -> T | None:
    """Repeat a request until the broker answers it; return None as soon as the answer is no longer wanted."""
    step, troubles = object(), context.options.troubles
    try:
        for attempt in count(1):
            if not wanted():
                return None
            try:
                return await ask()
            except UnavailableError as error:
                troubles.report(KAFKA, str(error), step=step, attempts=attempt)
            except HaltError as error:
                context.options.stop(error)
            await asyncio.sleep(context.options.retry_seconds)
    finally:
        troubles.end(KAFKA, step=step)
    raise AssertionError("attempts have no end")
