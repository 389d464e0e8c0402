"""Whatever breaks, session_stats is what follows from the log; and a suite that says so notices when it isn't so."""

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

pytestmark = pytest.mark.integration

_SEED = 1
_EVENTS = 200  # of less than an hour, which only the clock closes


@pytest.fixture
def world(stack: Stack, tmp_path: Path) -> Iterator[RollupWorld]:
    """With nothing in it."""
    with RollupWorld(stack, tmp_path, _SEED) as world:
        yield world


@pytest.mark.parametrize("fault", SAMPLE, ids=lambda fault: fault.name)
def test_no_row_is_lost_doubled_or_different(fault: Fault, stack: Stack, tmp_path: Path) -> None:
    """However often a fault is inflicted under load."""
    outcome = inflict(fault, fault.runs, _SEED, stack=stack, directory=tmp_path)
    assert outcome.sound, outcome


@pytest.mark.parametrize(
    ("defect", "point", "kind"),
    [
        ("removed_early", "hour_not_sent", Kind.MISSING),
        ("blind_emission", "emitted", Kind.SPLIT),
        ("offset_too_high", "whole", Kind.DIFFERING),
        ("unrecorded_closings", "emitted", Kind.EXTRA),
    ],
)
def test_a_defect_is_noticed(defect: str, point: str, kind: Kind, world: RollupWorld) -> None:
    """Without its part, who goes on after a kill makes other rows: of which kind, is said."""
    (family,) = world.families
    victim, successor = world.worker(point, family, defect=defect), world.worker(defect=defect)
    go(victim)
    victim.wait_until_consuming()
    world.ledger.produce(family, _EVENTS, damaged=0)
    world.ledger.flush()
    victim.wait()
    world.ledger.produce(family, _EVENTS, damaged=0)
    world.ledger.flush()
    go(successor)
    _wait_until_nothing_is_open(successor, world)
    verdict = world.ledger.judge()
    assert kind in {difference.kind for difference in verdict.differences}
    assert not verdict.lost
    assert not verdict.duplicated


def _wait_until_nothing_is_open(worker: Worker, world: RollupWorld) -> None:
    """Right or wrong, all rows are stored."""
    world.wait_until_committed()
    closed, still_open = "closed by the clock", ("chimera_rollup_open_windows", "chimera_rollup_waiting_events")
    worker.wait_for(lambda: worker.lines(closed) and not any(map(worker.metric, still_open)), "nothing open")
