"""Every event is in its place once, whatever others do to tables, server, group and log; and defects are noticed."""

from pathlib import Path

import pytest
from support.processes import eventually

from chaos import groups, lineage, overload, tables, transactions
from chaos.faults import Fault
from chaos.suite import inflict
from chaos.world import World, go
from pipeline.devstack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]  # several runs of a fault, on a busy machine

_SEED = 1


@pytest.mark.parametrize(
    "fault",
    [*tables.SAMPLE, *lineage.SAMPLE, *overload.SAMPLE, *transactions.SAMPLE, *groups.SAMPLE],
    ids=lambda fault: fault.name,
)
def test_nothing_is_lost_or_repeated(fault: Fault, stack: Stack, tmp_path: Path) -> None:
    """Repeated faults under load lose and duplicate nothing."""
    outcome = inflict(fault, fault.runs, _SEED, stack=stack, directory=tmp_path)
    assert outcome.sound, outcome


def test_a_worker_that_misses_expired_rows_is_noticed(stack: Stack, tmp_path: Path) -> None:
    """With the defect, the successor of a killed worker takes expired rows for lost ones, and inserts them again."""
    with tables.ExpiringWorld(stack, tmp_path, _SEED) as world:
        family = world.catalog.family("watcher_runs")
        _produce(world)
        go(victim := world.worker("inserted", family))
        victim.wait()
        eventually(lambda: not world.expired_rows(family), "expired")
        go(successor := world.worker(defect="missed_expired_rows"))
        eventually(lambda: successor.lines("rows are missing after a repeated insert"), "inserted again")


def test_a_worker_that_checks_no_columns_is_noticed(stack: Stack, tmp_path: Path) -> None:
    """With the defect, rows are stored in an altered table, and the verdict names their values."""
    with tables.AlteredWorld(stack, tmp_path, _SEED) as world:
        go(worker := world.worker(defect="unchecked_columns"))
        worker.wait_until_consuming()
        with world.altered(tables.ALTERATIONS[0]):
            _produce(world, "bench_runs")
            world.wait_until_committed()
        verdict = world.ledger.judge()
        assert not verdict.lost
        assert not verdict.duplicated
        assert all("cost_per_1k: expected" in stranger for stranger in verdict.strangers)
        assert len(verdict.strangers) > 20


def test_a_worker_that_reads_aborted_records_is_noticed(stack: Stack, tmp_path: Path) -> None:
    """With the defect, events of aborted transactions are stored, and the verdict has them as strangers."""
    with transactions.TransactionWorld(stack, tmp_path, _SEED) as world:
        for _ in range(10):
            _produce(world)
        go(world.worker(defect="aborted_records"))
        world.wait_until_committed()
        verdict = world.ledger.judge()
        assert not verdict.lost
        assert not verdict.duplicated
        assert len(verdict.strangers) >= 60
        assert all(stranger.startswith("watcher_runs: ") for stranger in verdict.strangers)


def _produce(world: World, name: str = "watcher_runs") -> None:
    world.ledger.produce(world.catalog.family(name), 60, damaged=0)
    world.ledger.flush()
