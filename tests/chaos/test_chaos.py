"""Every event is in its place once after any fault, and the suite notices defects."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.verifying import insert_again

from chaos.faults import SAMPLE, Fault
from chaos.suite import inflict, verified
from chaos.world import World, go
from pipeline.clickhouse.client import connect
from pipeline.devstack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]  # several runs of a fault, on a busy machine

_SEED = 1


@pytest.fixture
def world(stack: Stack, tmp_path: Path) -> Iterator[World]:
    """An empty world."""
    with World(stack, tmp_path, _SEED) as world:
        yield world


@pytest.mark.parametrize("fault", SAMPLE, ids=lambda fault: fault.name)
def test_nothing_is_lost_or_repeated(fault: Fault, stack: Stack, tmp_path: Path) -> None:
    """Repeated faults under load lose and duplicate nothing."""
    outcome = inflict(fault, fault.runs, _SEED, stack=stack, directory=tmp_path)
    assert outcome.sound, outcome


@pytest.mark.parametrize("defect", ["blind_repeats", "forgotten_ranges"])
def test_a_defect_is_noticed(defect: str, world: World) -> None:
    """With the defect, the next owner stores the killed worker's rows again, and the verdict lists them."""
    family = world.catalog.family("ui_events")
    world.ledger.produce(family, 40, damaged=0)
    world.ledger.flush()
    go(victim := world.worker("inserted", family, defect=defect))
    victim.wait()
    stored = world.ledger.rows(family)
    assert stored
    world.ledger.produce(family, 40, damaged=0)
    world.ledger.flush()
    go(world.worker(defect=defect))
    world.wait_until_committed()
    verdict = world.ledger.judge()
    assert len(verdict.duplicated) >= len(stored)
    assert not verdict.lost


def test_coordinates_need_no_tokens(world: World) -> None:
    """With random tokens, the next owner stores none of the killed worker's rows again: it finds them there."""
    family = world.catalog.family("ui_events")
    world.ledger.produce(family, 40, damaged=0)
    world.ledger.flush()
    go(victim := world.worker("inserted", family, defect="random_tokens"))
    victim.wait()
    assert world.ledger.rows(family)
    go(world.worker(defect="random_tokens"))
    world.wait_until_committed()
    assert world.ledger.judge().sound


def test_lost_and_duplicated_records_are_listed(world: World) -> None:
    """The verdict lists the coordinates of their records."""
    family = world.catalog.family("episodes")
    world.ledger.produce(family, 20)
    world.ledger.flush()
    go(world.worker())
    world.wait_until_committed()
    assert world.ledger.judge().sound
    assert list(verified(world)) == []
    lost, repeated, *_ = world.ledger.rows(family)
    with connect(world.settings.clickhouse) as client:
        client.execute(f"ALTER TABLE episodes DELETE WHERE run_id = '{lost}' SETTINGS mutations_sync = 1")
    insert_again(world.settings, "episodes", f"run_id = '{repeated}'")
    verdict = world.ledger.judge()
    assert verdict.lost == [world.ledger.coordinates(family, lost)]
    assert verdict.duplicated == [world.ledger.coordinates(family, repeated)]
    (found,) = verified(world)
    assert found.startswith("episodes: 1 lost, 1 doubled, 0 strange, 0 without coordinates")
