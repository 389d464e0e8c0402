"""Run a fault in its own world, and return its outcome."""

import random
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from chaos.faults import Fault
from chaos.ledger import Verdict
from chaos.world import World
from pipeline.devstack import Stack
from pipeline.operations.lineage.report import Wanted
from pipeline.operations.lineage.verify import verify


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a fault."""

    fault: str
    runs: int
    verdict: Verdict
    stuck: str = ""
    """Expected state that the pipeline didn't reach; empty if it got through."""
    verified: tuple[str, ...] = ()
    """Differences that `chimera verify` finds, in one line for each family that has some."""

    @property
    def sound(self) -> bool:
        """True if the pipeline got through and every record is in its place once."""
        return self.verdict.sound and not self.stuck and not self.verified


def inflict(
    fault: Fault, runs: int, seed: int, *, stack: Stack, directory: Path, advance: Callable[[], None] = lambda: None
) -> Outcome:
    """Run a fault several times under one load, then judge all produced events, and compare the coordinates.

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
        world.rate = fault.load
        try:
            for _ in fault.inflict(world, random.Random(own), runs):
                done += 1
                advance()
            world.settle()
        except AssertionError as error:
            stuck = str(error).partition("\n")[0] or _place(error)
            world.start_over()  # delayed records aren't lost
        verdict = world.ledger.judge()
        return Outcome(fault.name, done, verdict, stuck, () if stuck else tuple(verified(world)))


def _place(error: AssertionError) -> str:
    """Return the line of a check that has no message."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}: {last.line}"


def verified(world: World) -> Iterator[str]:
    """Yield the differences that `chimera verify` finds, a line for each family: a second oracle, by coordinates."""
    for family in world.families:
        report = verify(world.settings, family, Wanted(), lambda *_: None)
        if report.differs or report.unknown_rows:
            counts = ", ".join(f"{report.total(name)} {name}" for name in ("lost", "doubled", "strange"))
            yield f"{family.name}: {counts}, {report.unknown_rows} without coordinates: {report.listed}"
