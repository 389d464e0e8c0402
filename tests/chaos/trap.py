"""Traps: a process sends itself a signal at the n-th passing of a point.

The pipeline has no hooks for this: its methods are wrapped from outside.
"""

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, NamedTuple

Matches = Callable[..., bool]


class Trap:
    """A trap that sends this process a signal at its n-th passing.

    Args:
        topic: only passings for this topic count.
        table: only passings for this table count, at points that know the table instead.
        nth: number of the passing that triggers the signal.
        number: number of the signal.
    """

    def __init__(self, topic: str, table: str, nth: int, number: signal.Signals) -> None:
        self.topic = topic
        self.table = table
        self._left = nth
        self._number = number
        self._lock = threading.Lock()
        self._random = random.Random(nth)

    def passed(self) -> None:
        """Count a passing, and send the signal at the n-th."""
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), self._number)
                time.sleep(0.05)  # a stopped process stops within this

    def before(self, owner: Any, name: str, matches: Matches) -> None:
        """Count a passing before each matching call of a method."""
        original = getattr(owner, name)

        @wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if matches(*args):
                self.passed()
            return original(*args, **kwargs)

        setattr(owner, name, wrapper)

    def after(self, owner: type, name: str, matches: Matches) -> None:
        """Count a passing after each matching call of a method."""
        original = getattr(owner, name)

        @wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if matches(*args):
                self.passed()
            return result

        @wraps(original)
        async def waiting(*args: Any, **kwargs: Any) -> Any:
            result = await original(*args, **kwargs)
            if matches(*args):
                self.passed()
            return result

        setattr(owner, name, waiting if iscoroutinefunction(original) else wrapper)

    def during(self, owner: type, name: str, matches: Matches, seconds: float) -> None:
        """Count a passing at a random time in the first `seconds` of each matching call of a coroutine."""
        original = getattr(owner, name)

        @wraps(original)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            if matches(*args):
                asyncio.get_running_loop().call_later(self._random.uniform(0, seconds), self.passed)
            return await original(*args, **kwargs)

        setattr(owner, name, wrapper)


class Point(NamedTuple):
    """A point at which a worker may be killed or frozen."""

    set_up: Callable[[Trap], None]
    description: str
    passings: int = 6
    """Largest number of passings to wait for; small if a worker passes the point rarely."""
    in_recovery: bool = False
    """True if a worker passes the point only while it recovers what an earlier owner has begun."""
