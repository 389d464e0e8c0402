"""Bounds of a request: the time for its answer, and the pipeline's errors for aiokafka's."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaError,
    TopicAuthorizationFailedError,
    UnsupportedVersionError,
)

from pipeline.errors import HaltError, UnavailableError
from pipeline.transport.adapter.group_answers import ACLS, Course, GroupRefusalError

T = TypeVar("T")


@contextmanager
def allowed() -> Iterator[None]:
    """Turn a missing ACL, and what else only a person can mend, into a HaltError; another attempt won't help."""
    try:
        yield
    except (IncompatibleBrokerVersion, UnsupportedVersionError) as error:
        raise HaltError(f"Kafka's version doesn't suit this worker: {error}") from None
    except (GroupAuthorizationFailedError, TopicAuthorizationFailedError) as error:
        raise HaltError(f"Kafka doesn't let this worker do that: {error}; {ACLS}") from None
    except GroupRefusalError as error:
        if error.answer.course is Course.HALT:
            raise HaltError(f"Kafka refuses this worker: {error}") from None
        raise


async def in_time(seconds: float, ask: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Await an answer, at most this long.

    Raises:
        HaltError: an ACL is missing, or another refusal that another attempt won't change.
        UnavailableError: no answer in time, or an error of the broker or of the connection.
    """
    try:
        with allowed():
            async with asyncio.timeout(seconds):
                return await ask(*args)
    except TimeoutError:
        raise UnavailableError(f"no answer in {seconds:.0f} s") from None
    except KafkaError as error:
        raise UnavailableError(repr(error)) from error
