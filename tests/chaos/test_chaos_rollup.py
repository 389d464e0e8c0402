"""session_stats follows from the log after any fault, and the suite notices defects."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import Worker

from chaos.faults import Fault
from chaos.rollup import SAMPLE, RollupWorld
from chaos.suite import inflict
from chaos.world import go
from pipeline.devstack import Stack
from pipeline.rollup.audit import Kind

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]  # several runs of a fault, on a busy machine

_SEED = 1
_EVENTS = 200  # of less than an hour, which only the clock closes


@pytest.fixture
def world(stack: Stack, tmp_path: Path) -> Iterator[RollupWorld]:
    """An empty world."""
    with RollupWorld(stack, tmp_path, _SEED) as world:
        yield world


@pytest.mark.parametrize("fault", SAMPLE, ids=lambda fault: fault.name)
def test_no_row_is_lost_doubled_or_different(fault: Fault, stack: Stack, tmp_path: Path) -> None:
    """Repeated faults under load lose, duplicate and change no row."""
    outcome = inflict(fault, fault.runs, _SEED, stack=stack, directory=tmp_path)
    assert outcome.sound, outcome


@pytest.mark.parametrize(
    ("defect", "point", "kind"),
    [
        ("removed_early", "hour_not_sent", Kind.MISSING),
        ("blind_emission", "emitted", Kind.SPLIT),
        ("offset_too_high", "whole", Kind.DIFFERING),
        ("uncommitted_closings", "emitted", Kind.EXTRA),
    ],
)
def test_a_defect_is_noticed(defect: str, point: str, kind: Kind, world: RollupWorld) -> None:
    """With the defect, the next owner stores other rows, and the verdict has differences of this kind."""
    (family,) = world.families
    victim, next_owner = world.worker(point, family, defect=defect), world.worker(defect=defect)
    go(victim)
    victim.wait_until_consuming()
    world.ledger.produce(family, _EVENTS, damaged=0)
    world.ledger.flush()
    victim.wait()
    world.ledger.produce(family, _EVENTS, damaged=0)
    world.ledger.flush()
    go(next_owner)
    _wait_until_nothing_is_open(next_owner, world)
    verdict = world.ledger.judge()
    assert kind in {difference.kind for difference in verdict.differences}
    assert not verdict.lost
    assert not verdict.duplicated


def _wait_until_nothing_is_open(worker: Worker, world: RollupWorld) -> None:
    """Wait until all rows are stored, right or wrong."""
    world.wait_until_committed()
    closed, still_open = "closed by the clock", ("chimera_rollup_open_windows", "chimera_rollup_waiting_events")
    worker.wait_for(lambda: worker.lines(closed) and not any(map(worker.metric, still_open)), "nothing open")
