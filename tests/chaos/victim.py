"""`python -m chaos.victim`: the worker, killed or frozen when it passes a chosen point for the n-th time.

The pipeline knows nothing of this: its methods are wrapped from outside before Faust runs.
"""

import asyncio
import os
import random
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import click
from aiokafka.consumer.group_coordinator import GroupCoordinator
from clickhouse_driver import Client
from faust.cli.faust import cli

import pipeline.sink
from pipeline.batches import MicroBatch, State
from pipeline.broker import BrokerThread
from pipeline.dead_letters import DeadLetters
from pipeline.ingest import Ingest
from pipeline.sink import Sink
from pipeline.transport import Consumer

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

        setattr(owner, name, wrapper)

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
    """A place on the way of a micro-batch."""

    set_up: Callable[[Trap], None]
    description: str


def _insert_into(trap: Trap) -> Matches:
    return lambda _, table, *__: bool(table == trap.table)


def _of_batch(trap: Trap) -> Matches:
    return lambda _, batch, *__: bool(batch.topic == trap.topic)


def _any_of(trap: Trap) -> Matches:
    return lambda *arguments: any(tp.topic == trap.topic for tp in arguments[-1])


def _within_insert(owner: Any, name: str) -> Callable[[Trap], None]:
    """A method that knows nothing of the table: what its thread inserts into is remembered."""

    def set_up(trap: Trap) -> None:
        thread = threading.local()

        def remember(_: Any, table: str, *__: Any) -> bool:
            thread.table = table
            return False

        trap.before(Sink, "insert", remember)
        trap.before(owner, name, lambda *_: getattr(thread, "table", None) == trap.table)

    return set_up


POINTS = {
    "before_recorded": Point(
        lambda trap: trap.before(BrokerThread, "commit_ranges", _any_of(trap)), "before the range is recorded"
    ),
    "before_lease": Point(lambda trap: trap.before(Ingest, "_insert_now", _of_batch(trap)), "recorded, lease not read"),
    "not_sent": Point(lambda trap: trap.before(Sink, "insert", _insert_into(trap)), "recorded, not sent"),
    "asked": Point(_within_insert(pipeline.sink, "write_block"), "query sent, data not"),
    "sent": Point(_within_insert(Client, "receive_end_of_insert_query"), "sent, no reply"),
    "inserted": Point(lambda trap: trap.after(Sink, "insert", _insert_into(trap)), "inserted, not acked"),
    "dead_letters": Point(lambda trap: trap.after(DeadLetters, "send", _of_batch(trap)), "dead letters written"),
    "acked": Point(
        lambda trap: trap.after(MicroBatch, "ack", lambda batch: bool(batch.topic == trap.topic)),
        "acked, not committed",
    ),
    "commit": Point(
        lambda trap: trap.during(GroupCoordinator, "_do_commit_offsets", _any_of(trap), 0.002), "during a commit"
    ),
    "revoke": Point(
        lambda trap: trap.during(Consumer, "on_partitions_revoked", _any_of(trap), 0.02), "during a revoke"
    ),
    "assign": Point(
        lambda trap: trap.before(Consumer, "_state_of", lambda _, tp, *__: bool(tp.topic == trap.topic)),
        "during an assignment",
    ),
}
"""Where a worker may be killed or frozen: name to point, in the order in which a micro-batch passes them."""


def _random_tokens() -> None:
    batch_class: Any = MicroBatch
    token = batch_class.token
    batch_class.token = property(lambda batch: f"{token.fget(batch)}/{uuid.uuid4()}")


def _forgotten_ranges() -> None:
    consumer: Any = Consumer
    state_of = consumer._state_of

    def forgetful(*arguments: Any) -> State | None:
        state = state_of(*arguments)
        return state and State(state.offset, ())

    consumer._state_of = forgetful


DEFECTS = {"random_tokens": _random_tokens, "forgotten_ranges": _forgotten_ranges}
"""What the suite must notice when it is broken."""


@click.command()
@click.option("--at", "point", type=click.Choice(list(POINTS)), help="Where the signal is sent.")
@click.option("--topic", default="", help="Of the family that counts.")
@click.option("--table", default="", help="Of the same.")
@click.option("--nth", default=1, help="Passing that counts.")
@click.option("--freeze", is_flag=True, help="SIGSTOP, not SIGKILL.")
@click.option("--defect", type=click.Choice(list(DEFECTS)), help="Break this.")
def main(*, point: str | None, topic: str, table: str, nth: int, freeze: bool, defect: str | None) -> None:
    """Run the worker once a line comes from standard input."""
    if point:
        number = signal.SIGSTOP if freeze else signal.SIGKILL
        POINTS[point].set_up(Trap(topic, table, nth, number))
    if defect:
        DEFECTS[defect]()
    sys.stdin.readline()
    sys.argv = ["faust", "-A", "pipeline", "worker"]
    cli()


if __name__ == "__main__":
    main()
