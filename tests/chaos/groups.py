"""Faults of the consumer group: a consumer of somebody else's in it, and a coordinator that moves to another broker."""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, ConsumerGroupState
from confluent_kafka.admin import AdminClient
from support.kafka_cluster import KafkaCluster
from support.kafka_proxy import OFFSET_FETCH
from support.kafka_requests import answer_to
from support.processes import Worker, eventually

from chaos.faults import PATIENCE_SECONDS, Fault, wait_for_rows
from chaos.world import World, go
from pipeline.devstack import Stack
from pipeline.kafka.client import client_config

_FOREIGN: Sequence[Mapping[str, str]] = (
    {"group.protocol": "consumer"},  # the new protocol: the broker lets such a consumer in while no worker is there
    {"partition.assignment.strategy": "range"},
)
_WAITS = "let this worker in"
_HELD_SECONDS = 0.25


@contextmanager
def foreign_member(world: World, config: Mapping[str, str]) -> Iterator[None]:
    """A consumer of somebody else's with the workers' group id; it commits nothing, and leaves at the end."""
    ours = {"group.id": world.settings.kafka.group_id, "enable.auto.commit": "false", "log_level": "0"}
    consumer = Consumer({**client_config(world.settings.kafka), **ours, **config})
    try:
        consumer.subscribe([world.families[0].topic.name])
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not consumer.assignment():
            assert time.monotonic() < deadline, "the other consumer isn't in the group"
            consumer.poll(0.1)
        yield
    finally:
        consumer.close()


def _share_group(world: World, rng: random.Random, runs: int) -> Iterator[None]:
    """Kill a worker, and let another consumer join before its successor, which waits until that has left."""
    with world.load():
        go(worker := world.worker())
        for run in range(runs):
            wait_for_rows(worker.wait_until_consuming())
            worker.kill()
            worker = world.worker()
            eventually(lambda: _is_empty(world), "the killed worker is out of the group", PATIENCE_SECONDS)
            with foreign_member(world, _FOREIGN[run % len(_FOREIGN)]):
                go(worker)
                _wait_until_refused(worker)
                time.sleep(rng.uniform(0, 1))
            yield
        wait_for_rows(worker.wait_until_consuming())


def _wait_until_refused(worker: Worker) -> None:
    worker.wait_for(lambda: worker.lines(_WAITS), "waiting for the group", PATIENCE_SECONDS)


def _is_empty(world: World) -> bool:
    group = world.settings.kafka.group_id
    admin = AdminClient({**client_config(world.settings.kafka), "log_level": 0})
    described = answer_to(lambda: admin.describe_consumer_groups([group])[group], PATIENCE_SECONDS)
    return bool(described.state == ConsumerGroupState.EMPTY)


class ClusterWorld(World):
    """A world with two brokers of its own, each behind a proxy."""

    def __init__(self, stack: Stack, directory: Path, seed: int) -> None:
        self.cluster = KafkaCluster(directory / f"cluster-{seed}")
        self.cluster.__enter__()
        try:
            super().__init__(stack, directory, seed)
        except BaseException:
            self.cluster.__exit__()
            raise

    def __exit__(self, *arguments: object) -> None:
        try:
            super().__exit__(*arguments)
        finally:
            self.cluster.__exit__()

    def _addresses(self) -> tuple[str, int]:
        return self.cluster.bootstrap_servers, self.stack.clickhouse.port


def _move_coordinator(world: World, rng: random.Random, runs: int) -> Iterator[None]:
    """Kill a worker, and let the coordinator move while its successor asks for the group's commits."""
    assert isinstance(world, ClusterWorld)
    with world.load():
        go(worker := world.worker())
        for _ in range(runs):
            worker.wait_until_consuming()
            successor = world.worker()
            world.cluster.make_coordinator_movable()
            wait_for_rows(worker)
            worker.kill()
            with world.cluster.proxy(1).holding(OFFSET_FETCH, client="faust") as held:
                go(worker := successor)
                assert held.wait(PATIENCE_SECONDS), "the worker doesn't ask for the group's commits"
                world.cluster.move_coordinator()
                time.sleep(rng.uniform(0, _HELD_SECONDS))
            wait_for_rows(worker.wait_until_consuming())
            yield


FAULTS = (
    Fault("another consumer in the group", 6, _share_group),
    Fault("coordinator moves during a takeover", 4, _move_coordinator, ClusterWorld),
)
"""The faults of the long suite."""

SAMPLE = (Fault("another consumer in the group", 1, _share_group),)
"""One run for the short suite; tests/integration/test_moved_coordinator.py has one of the other fault."""
