"""Inflicts a fault on a world of its own, and says what it has led to."""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chaos.faults import Fault
from chaos.ledger import Verdict
from pipeline.devstack import Stack


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a fault has led to."""

    fault: str
    runs: int
    verdict: Verdict
    stuck: str = ""
    """What didn't come to pass, when the pipeline didn't get through."""

    @property
    def sound(self) -> bool:
        """Whether each record is where it belongs, once, and the pipeline got through."""
        return self.verdict.sound and not self.stuck


def inflict(
    fault: Fault, runs: int, seed: int, *, stack: Stack, directory: Path, advance: Callable[[], None] = lambda: None
) -> Outcome:
    """Inflict a fault so many times under one load, then see what has become of all that was produced.

    Args:
        fault: which.
        runs: how often.
        seed: of events, passings and pauses; each fault makes its own of it.
        stack: broker and ClickHouse, which are brought back first if they are gone.
        directory: for the logs of the workers.
        advance: called after each run.
    """
    for server in stack.servers:
        server.resume()
    stack.start()
    own = zlib.crc32(f"{seed} {fault.name}".encode())
    done, stuck = 0, ""
    with fault.world(stack, directory, own) as world:
        try:
            for _ in fault.inflict(world, random.Random(own), runs):
                done += 1
                advance()
            world.settle()
        except AssertionError as error:
            stuck = str(error).partition("\n")[0]
            world.start_over()  # what is late isn't lost
        return Outcome(fault.name, done, world.ledger.judge(), stuck)
