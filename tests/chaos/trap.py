"""A signal that a process sends itself when it passes a chosen point for the n-th time.

The pipeline knows nothing of this: its methods are wrapped from outside.
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
    """Sends this process a signal when it is passed for the n-th time.

    Args:
        topic: only what is done for this topic counts.
        table: likewise, where the table is what is known.
        nth: the passing that counts.
        number: of the signal.
    """

    def __init__(self, topic: str, table: str, nth: int, number: signal.Signals) -> None:
        self.topic = topic
        self.table = table
        self._left = nth
        self._number = number
        self._lock = threading.Lock()
        self._random = random.Random(nth)

    def passed(self) -> None:
        """Spring, if this is the passing."""
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), self._number)
                time.sleep(0.05)  # a stopped process stops within this

    def before(self, owner: Any, name: str, matches: Matches) -> None:
        """Be passed when a method is entered with arguments that match."""
        original = getattr(owner, name)

        @wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if matches(*args):
                self.passed()
            return original(*args, **kwargs)

        setattr(owner, name, wrapper)

    def after(self, owner: type, name: str, matches: Matches) -> None:
        """Be passed when a method returns that had arguments that match."""
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
        """Be passed somewhen in the first so many seconds of a coroutine that had arguments that match."""
        original = getattr(owner, name)

        @wraps(original)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            if matches(*args):
                asyncio.get_running_loop().call_later(self._random.uniform(0, seconds), self.passed)
            return await original(*args, **kwargs)

        setattr(owner, name, wrapper)


class Point(NamedTuple):
    """A place where a worker may be killed or frozen."""

    set_up: Callable[[Trap], None]
    description: str
    passings: int = 6
    """At most so many are awaited: fewer where a worker's life is short of them."""
