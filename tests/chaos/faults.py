"""Faults of the pipeline: each is a generator over a world, and yields after each run.

At its end a fault leaves workers running that process all produced events.
"""

import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from support.processes import Worker, eventually

from chaos.points import INGEST_POINTS, POINTS
from chaos.proxy import Harm, Proxy
from chaos.world import BURSTS, SESSION_SECONDS, STEADY, Load, World, go, wait_until_frozen
from pipeline.devstack import Server

Inflict = Callable[[World, random.Random, int], Iterator[None]]

PATIENCE_SECONDS = 240.0
_POLL_SECONDS = 0.05
_RECOVERY_SECONDS = 15.0
_POINTS = tuple(INGEST_POINTS)
_FREEZING_POINTS = ("before_commit", "before_lease", "not_sent", "asked", "sent", "inserted", "acked", "commit")


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, its number of runs, and its load."""

    name: str
    runs: int
    inflict: Inflict
    world: type[World] = World
    load: Load = STEADY


def kill(points: Sequence[str], world: World, rng: random.Random, runs: int) -> Iterator[None]:
    """Kill one worker after another, at the points in turn; the next worker is already loaded."""
    turns = [points[run % len(points)] for run in range(runs)]
    with world.load():
        go(worker := victim_at(turns[0], world, rng, 0))
        for run, point in enumerate(turns, start=1):
            next_victim = victim_at(turns[run], world, rng, run) if run < runs else world.worker()
            if point == "revoke":  # a revoke needs a second worker
                worker.wait_until_consuming()
                go(next_victim)
            while not _trapped(worker, point):  # there was nothing to recover
                worker.kill()
                go(worker := victim_at(point, world, rng, run))
            if point != "revoke":
                go(next_victim)
            worker = next_victim
            yield
        worker.wait_until_consuming()


def _trapped(worker: Worker, point: str) -> bool:
    """Wait until the worker has been killed at the point; False if its recovery ended without passing it."""
    if POINTS[point].in_recovery:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while worker.running and not worker.lines("consuming") and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        with suppress(AssertionError):
            worker.wait(_RECOVERY_SECONDS)
        if worker.running:
            return False
    assert worker.wait(PATIENCE_SECONDS) == -signal.SIGKILL, worker.log[-2000:]
    return True


def victim_at(point: str, world: World, rng: random.Random, run: int, *, freeze: bool = False) -> Worker:
    """Return a worker that stops at a random passing of the point, for one of the families in turn."""
    family = world.families[run % len(world.families)]
    return world.worker(point, family, rng.randint(1, POINTS[point].passings), freeze=freeze)


def _freeze(world: World, rng: random.Random, runs: int) -> Iterator[None]:
    """Freeze one of two workers until the other has taken over its partitions, then let it go on."""
    with world.load():
        go(steady := world.worker())
        steady.wait_until_consuming()
        for run in range(runs):
            point = _FREEZING_POINTS[run % len(_FREEZING_POINTS)]
            go(victim := victim_at(point, world, rng, run, freeze=True))
            wait_until_frozen(victim, PATIENCE_SECONDS)
            wait_until_alone(steady, world)
            time.sleep(rng.uniform(0, SESSION_SECONDS))
            with rebalanced(victim):
                victim.process.send_signal(signal.SIGCONT)
            stop(victim)
            wait_until_alone(steady, world)  # before the next victim is waited for
            yield


def wait_until_alone(worker: Worker, world: World) -> None:
    """Wait until a worker is the group's only member, and ready.

    The broker knows; a line in the worker's log may be of an earlier rebalance.
    """
    worker.wait_for(lambda: world.members == 1 and worker.ready, "taken over", PATIENCE_SECONDS)


@contextmanager
def rebalanced(worker: Worker) -> Iterator[None]:
    """Wait, at the end of the block, until the worker logs a new assignment."""
    before = len(worker.lines("partitions="))
    yield
    worker.wait_for(lambda: len(worker.lines("partitions=")) > before and worker.ready, "rebalanced", PATIENCE_SECONDS)


def scale(most: int, world: World, rng: random.Random, runs: int) -> Iterator[None]:
    """Scale from one worker to `most` workers and back."""
    with world.load():
        go(first := world.worker())
        first.wait_until_consuming()
        workers = [first]
        for _ in range(runs):
            for more in [world.worker() for _ in range(most - 1)]:
                go(more)
                workers.append(more)
                time.sleep(rng.uniform(0, 1))
            workers[-1].wait_until_consuming()
            for worker in workers:  # until its first line, a process that gets SIGTERM has no handler for it
                worker.wait_for(partial(worker.lines, "starting"), "started", PATIENCE_SECONDS)
            while len(workers) > 1:
                stop(workers.pop(rng.randrange(len(workers))))
            workers[0].wait_until_consuming()
            yield


def _bounce(hard: bool, world: World, rng: random.Random, runs: int) -> Iterator[None]:
    """Stop or kill one of two workers at a random time, and start another."""
    with world.load():
        workers = [world.worker(), world.worker()]
        for worker in workers:
            go(worker)
        for _ in range(runs):
            spare = world.worker()
            workers[-1].wait_until_consuming()
            time.sleep(rng.uniform(0, 1.5))
            ending = workers.pop(rng.randrange(2))
            if hard:
                ending.kill()
            else:
                stop(ending)
            go(spare)
            workers.append(spare)
            yield
        workers[-1].wait_until_consuming()


def _restart(
    server: Callable[[World], Server], hard: bool, world: World, rng: random.Random, runs: int
) -> Iterator[None]:
    """Stop or kill a server under load, and start it again after a while."""
    with world.load():
        go(worker := world.worker())
        worker.wait_until_consuming()
        for _ in range(runs):
            time.sleep(rng.uniform(0, 0.4))  # the worker catches up, so inserts are in progress
            if hard:
                server(world).kill()
            else:
                server(world).stop()
            time.sleep(rng.uniform(0, 0.5))
            server(world).start()
            wait_for_rows(worker)
            yield


def wait_for_rows(worker: Worker) -> None:
    """Wait until the worker stores more rows."""
    name = "chimera_rows_inserted_total"
    before = worker.metric(name)
    worker.wait_for(lambda: worker.metric(name) > before, "rows stored again", PATIENCE_SECONDS)


def _harm(harms: Sequence[Harm], world: World, rng: random.Random, runs: int) -> Iterator[None]:
    """Disturb an insert on the network, in these ways in turn."""
    with Proxy(world.settings.clickhouse.native_port, rng.getrandbits(32)) as proxy, world.load():
        go(worker := world.worker(clickhouse_port=proxy.port))
        worker.wait_until_consuming()
        for run in range(runs):
            time.sleep(rng.uniform(0, 0.1))
            proxy.harm(harms[run % len(harms)])
            eventually(lambda: proxy.idle, "an insert disturbed", PATIENCE_SECONDS)
            yield
        stop(worker)
        go(last := world.worker())
        last.wait_until_consuming()


def stop(worker: Worker) -> None:
    """Stop a worker with SIGTERM; it must exit with code 0."""
    assert worker.terminate() == 0, worker.log[-2000:]


def _broker(world: World) -> Server:
    return world.stack.kafka


def _clickhouse(world: World) -> Server:
    return world.stack.clickhouse


FAULTS = (
    *(Fault(f"kill -9 {point.description}", 16, partial(kill, [name])) for name, point in INGEST_POINTS.items()),
    Fault("frozen (SIGSTOP) past the session timeout", 32, _freeze),
    Fault("1 to 4 to 1 workers", 6, partial(scale, 4)),
    Fault("one of two workers stopped (SIGTERM)", 12, partial(_bounce, False)),
    Fault("one of two workers killed", 12, partial(_bounce, True)),
    Fault("broker stopped and started", 4, partial(_restart, _broker, False)),
    Fault("broker killed and started", 6, partial(_restart, _broker, True)),
    Fault("ClickHouse stopped and started", 10, partial(_restart, _clickhouse, False)),
    Fault("ClickHouse killed and started", 24, partial(_restart, _clickhouse, True)),
    *(Fault(harm.value, 24, partial(_harm, [harm])) for harm in Harm),
)
"""The faults of the long suite."""

SAMPLE = (
    Fault("killed before it inserts", 4, partial(kill, _POINTS[:4]), load=BURSTS),
    Fault("killed after it inserts", 4, partial(kill, _POINTS[4:8]), load=BURSTS),
    Fault("killed in a commit or a rebalance", 3, partial(kill, _POINTS[8:]), load=BURSTS),
    Fault("frozen", 3, _freeze, load=BURSTS),
    Fault("inserts harmed", 3, partial(_harm, list(Harm)), load=BURSTS),
    Fault("1 to 4 to 1 workers", 1, partial(scale, 4)),
    Fault("broker stopped", 1, partial(_restart, _broker, False)),
    Fault("ClickHouse killed", 1, partial(_restart, _clickhouse, True)),
)
"""Twenty runs of different faults, for the short suite."""
