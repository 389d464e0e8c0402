"""Repeat a request until the broker answers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pipeline.errors import HaltError, UnavailableError
from pipeline.transport.context import Context

T = TypeVar("T")


async def until_answered(ask: Callable[[], Awaitable[T]], wanted: Callable[[], bool], context: Context) -> T | None:
    """Repeat a request until the broker answers it; return None as soon as the answer is no longer wanted."""
    while wanted():
        try:
            return await ask()
        except UnavailableError as error:
            context.log.warning("Kafka doesn't answer, the request will be repeated: %s", error)
        except HaltError as error:
            context.options.stop(error)
        await asyncio.sleep(context.options.retry_seconds)
    return None
