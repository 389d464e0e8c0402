"""A value that one task makes and other tasks wait for."""

import asyncio
from collections.abc import Awaitable
from typing import Generic, TypeVar

from pipeline.retry import LostPartitionError

T = TypeVar("T")


class Shared(Generic[T]):
    """A result with one owner and any number of readers; use it in one event loop.

    The owner sets the value or a failure once. A reader may come before or after. A cancelled reader affects neither
    the owner nor another reader.
    """

    __slots__ = ("_failure", "_settled", "_value")

    def __init__(self) -> None:
        self._settled = asyncio.Event()
        self._value: T | None = None
        self._failure: Exception | None = None

    async def own(self, work: Awaitable[T]) -> T:
        """Await the owner's work, set its value or its failure, and return or raise the same.

        If the owner is cancelled, the value is abandoned.
        """
        try:
            value = await work
        except Exception as error:
            self.fail(error)
            raise
        except BaseException:
            self.abandon()
            raise
        self.set(value)
        return value

    def set(self, value: T) -> None:
        """Set the value.

        Raises:
            RuntimeError: the value or a failure is set already.
        """
        if self._may_settle():
            self._value = value
            self._settled.set()

    def fail(self, error: Exception) -> None:
        """Set the failure that each reader raises.

        Raises:
            RuntimeError: the value or a failure is set already.
        """
        if self._may_settle():
            self._failure = error
            self._settled.set()

    def abandon(self) -> None:
        """Let readers raise LostPartitionError, unless value or failure is set; the owner's later one is ignored."""
        if not self._settled.is_set():
            self._failure = LostPartitionError()
            self._settled.set()

    async def get(self) -> T:
        """Wait for the value and return it.

        Raises:
            LostPartitionError: the value is abandoned.
            Exception: the owner's failure.
        """
        await self._settled.wait()
        if self._failure is not None:
            raise self._failure
        return self._value  # type: ignore[return-value] # set together with the event

    def _may_settle(self) -> bool:
        if not self._settled.is_set():
            return True
        if isinstance(self._failure, LostPartitionError):
            return False
        raise RuntimeError("the value is set already")
