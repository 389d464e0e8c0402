"""Run a fault in its own world, and return its outcome."""

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
    """Outcome of a fault."""

    fault: str
    runs: int
    verdict: Verdict
    stuck: str = ""
    """Expected state that the pipeline didn't reach; empty if it got through."""

    @property
    def sound(self) -> bool:
        """True if the pipeline got through and every record is in its place once."""
        return self.verdict.sound and not self.stuck


def inflict(
    fault: Fault, runs: int, seed: int, *, stack: Stack, directory: Path, advance: Callable[[], None] = lambda: None
) -> Outcome:
    """Run a fault several times under one load, then judge all produced events.

    Args:
        fault: the fault.
        runs: number of runs.
        seed: seed of events, passings and pauses; each fault derives its own seed from it.
        stack: broker and ClickHouse, which are brought back first if they are gone.
        directory: directory for the workers' logs.
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
            world.start_over()  # delayed records aren't lost
        return Outcome(fault.name, done, world.ledger.judge(), stuck)
