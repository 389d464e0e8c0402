"""Faults of the hourly rollup: kills and freezes while hours are stored, snapshots are written or partitions restored.

Event time passes thousands of times as fast as the clock, so hours close all the time. The records have timestamps that
make the clock close a partition's last hour soon after the load ends.
"""

import random
import signal
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

from support.processes import Worker, eventually

from chaos.faults import PATIENCE_SECONDS, Fault, kill, rebalanced, scale, stop, victim_at, wait_until_alone
from chaos.points import CLOCK_POINTS, ROLLUP_POINTS
from chaos.sessions import SessionLedger
from chaos.world import World, go, wait_until_frozen
from pipeline.catalog import Family

_PARTITIONS = 3  # of ui_events and the state topic; other topics have one
_AFTER_SNAPSHOT_SECONDS = 0.3  # time for some records, but not for another snapshot
_SETTLE_SECONDS = 180.0
BEHIND_SECONDS = 4200  # an hour and the grace: the last hour is over as soon as the partition is idle
_IDLE_SECONDS = 2
_FREEZING_POINTS = ("added", "hour_not_sent", "hour_asked", "emitted", "chunks", "manifest", *CLOCK_POINTS)
_SAMPLE_POINTS = ("emitted", "chunks", "replayed")


class RollupWorld(World):
    """A world with ui_events only."""

    worker_settings: ClassVar = {
        ("rollup", "idle_seconds"): _IDLE_SECONDS,
        ("rollup", "snapshot_rows"): 150,
        ("rollup", "snapshot_seconds"): 1,
    }
    ledger: SessionLedger

    @property
    def families(self) -> tuple[Family, ...]:
        """The produced family."""
        return (self.catalog.family("ui_events"),)

    def __exit__(self, *arguments: object) -> None:
        self.ledger.close()
        super().__exit__(*arguments)

    def settle(self) -> None:
        """Wait until the clock has closed the last hours and all rows are stored."""
        super().settle()

        def all_closed() -> bool:
            expected = self.ledger.expected()
            return not expected.open and self.ledger.stored_windows() >= expected.windows

        eventually(all_closed, "all hours closed and stored", _SETTLE_SECONDS)

    def _make_ledger(self, seed: int) -> SessionLedger:
        return SessionLedger(self.settings, self.catalog, seed, BEHIND_SECONDS * 1000)

    def _declare(self, document: dict[str, Any]) -> None:
        super()._declare(document)
        for topic in document["topics"].values():
            if topic.get("family") == "ui_events":
                topic["timestamps"] = "producer"
        for topic in document["topics"].values():
            topic["partitions"] = _PARTITIONS if "ui_events" in {topic.get("family"), topic.get("state_of")} else 1


def kill_with_snapshots(points: Sequence[str], world: World, rng: random.Random, runs: int) -> Iterator[None]:
    """Kill workers that have snapshots to restore from and records to replay."""
    with world.load():
        go(first := world.worker())
        _wait_for_snapshots(first)
        time.sleep(_AFTER_SNAPSHOT_SECONDS)
        first.kill()
    yield from kill(points, world, rng, runs)


def _wait_for_snapshots(worker: Worker) -> None:
    worker.wait_until_consuming()
    name = "chimera_rollup_snapshot_seconds_count"
    worker.wait_for(lambda: worker.metric(name) >= 2 * _PARTITIONS, "snapshots", PATIENCE_SECONDS)


def kill_by_clock(points: Sequence[str], world: World, rng: random.Random, runs: int) -> Iterator[None]:
    """Kill workers after the load has ended; it goes on before the next worker starts."""
    for run in range(runs):
        go(worker := victim_at(points[run % len(points)], world, rng, run))
        with world.load():
            worker.wait_until_consuming()
            time.sleep(rng.uniform(0.2, 1))
        assert worker.wait(PATIENCE_SECONDS) == -signal.SIGKILL, worker.log[-2000:]
        with world.load():
            time.sleep(rng.choice((0, 0.3)))
        yield
    go(world.worker())


def _freeze(points: Sequence[str], world: World, rng: random.Random, runs: int) -> Iterator[None]:
    """Freeze one of two workers until the other has taken over and closed hours by the clock, then let it go on."""
    with world.load():
        go(steady := world.worker())
        steady.wait_until_consuming()
    for run in range(runs):
        point = points[run % len(points)]
        nth = (
            1 if point in CLOCK_POINTS else rng.randint(1, ROLLUP_POINTS[point].passings)
        )  # the zombie may have only one partition
        go(zombie := world.worker(point, world.families[0], nth, freeze=True))
        with world.load():
            if point in CLOCK_POINTS:
                zombie.wait_until_consuming()
            else:
                wait_until_frozen(zombie, PATIENCE_SECONDS)
        wait_until_frozen(zombie, PATIENCE_SECONDS)
        wait_until_alone(steady, world)
        world.settle()
        with world.load():
            time.sleep(rng.choice((0, 1)))
            with rebalanced(zombie):
                zombie.process.send_signal(signal.SIGCONT)
            stop(zombie)
            wait_until_alone(steady, world)  # before the next zombie is waited for
        yield


FAULTS = (
    *(
        Fault(f"rollup: kill -9 {point.description}", 4, partial(kill_with_snapshots, [name]), RollupWorld)
        for name, point in ROLLUP_POINTS.items()
    ),
    *(
        Fault(f"rollup: kill -9 {point.description}", 4, partial(kill_by_clock, [name]), RollupWorld)
        for name, point in CLOCK_POINTS.items()
    ),
    Fault(
        "rollup: frozen, partition moved and closed",
        len(_FREEZING_POINTS),
        partial(_freeze, _FREEZING_POINTS),
        RollupWorld,
    ),
    Fault("rollup: 1 to 3 to 1 workers", 3, partial(scale, 3), RollupWorld),
)
"""The faults of the long suite."""

SAMPLE = (
    Fault("rollup killed", len(_SAMPLE_POINTS), partial(kill_with_snapshots, _SAMPLE_POINTS), RollupWorld),
    Fault("rollup frozen", 1, partial(_freeze, ["emitted"]), RollupWorld),
)
"""A few runs for the short suite."""
