"""Faults that no deduplication token helps against: restored tables, lost days, forgotten tokens."""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import Consumer, TopicPartition
from support.kafka_requests import patiently
from support.processes import eventually

from chaos.faults import PATIENCE_SECONDS, Fault, stop, victim_at
from chaos.proxy import Harm, Proxy
from chaos.world import BURSTS, World, go
from pipeline.catalog import Family
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.coordinates import COORDINATES, OFFSET, PARTITION
from pipeline.kafka.client import client_config

_POINTS = ("inserted", "sent", "acked", "not_sent")
_WINDOW = "MODIFY SETTING non_replicated_deduplication_window"
_SECONDS = 120.0


class LineageWorld(World):
    """A world whose administrator restores tables, takes days away and narrows windows."""

    def restore(self) -> None:
        """Put a backup in each table's place: the same rows, and no token."""
        with connect(self.settings.clickhouse) as client:
            for family in self.families:
                backup = f"Memory('{family.table} {time.monotonic_ns()}')"
                client.execute(f"BACKUP TABLE {family.table} TO {backup}")
                client.execute(f"DROP TABLE {family.table} SYNC")
                client.execute(f"RESTORE TABLE {family.table} FROM {backup}")

    def lose_uncommitted_days(self) -> None:
        """Drop all days of each table; put the rows back whose offsets the group has committed."""
        with connect(self.settings.clickhouse) as client:
            for family in self.families:
                names = ", ".join([*(field.name for field in family.schema.fields), *COORDINATES])
                committed = " OR ".join(
                    f"({PARTITION} = {number} AND {OFFSET} < {offset})" for number, offset in self._committed(family)
                )
                copy = f"({names}) SELECT {names} FROM"
                taken = {"insert_allow_materialized_columns": 1, "max_partitions_per_insert_block": 0}
                client.execute(f"CREATE TABLE kept AS {family.table}")
                client.execute(f"INSERT INTO kept {copy} {family.table} WHERE {committed}", settings=taken)
                for (day,) in client.execute(
                    "SELECT DISTINCT partition FROM system.parts "
                    f"WHERE active AND database = currentDatabase() AND table = '{family.table}'"
                ):
                    client.execute(f"ALTER TABLE {family.table} DROP PARTITION '{day}'")
                client.execute(f"INSERT INTO {family.table} {copy} kept", settings=taken)
                client.execute("DROP TABLE kept SYNC")

    @contextmanager
    def narrow_windows(self) -> Iterator[None]:
        """Let the tables remember two tokens until the end of the block, which a worker's start would refuse."""
        with connect(self.settings.clickhouse) as client:
            for family in self.families:
                client.execute(f"ALTER TABLE {family.table} {_WINDOW} = 2")
            yield
            for family in self.families:
                client.execute(f"ALTER TABLE {family.table} {_WINDOW} = 800000")

    def _committed(self, family: Family) -> Sequence[tuple[int, int]]:
        consumer = Consumer({**client_config(self.settings.kafka), "group.id": self.settings.kafka.group_id})
        try:
            asked = [TopicPartition(family.topic.name, number) for number in range(self.topic_partitions)]
            return [(tp.partition, max(tp.offset, 0)) for tp in patiently(lambda: consumer.committed(asked, _SECONDS))]
        finally:
            consumer.close()


def _between_owners(what: str, world: World, rng: random.Random, runs: int) -> Iterator[None]:
    """Kill one worker after another; change the tables before the next one takes its partitions over."""
    assert isinstance(world, LineageWorld)
    with world.load():
        go(worker := victim_at(_POINTS[0], world, rng, 0))
        for run in range(1, runs + 1):
            successor = victim_at(_POINTS[run % len(_POINTS)], world, rng, run) if run < runs else world.worker()
            assert worker.wait(PATIENCE_SECONDS) < 0, worker.log[-2000:]
            getattr(world, what)()
            go(worker := successor)
            yield
        worker.wait_until_consuming()


def _restored(world: World, rng: random.Random, runs: int) -> Iterator[None]:
    yield from _between_owners("restore", world, rng, runs)


def _dropped(world: World, rng: random.Random, runs: int) -> Iterator[None]:
    yield from _between_owners("lose_uncommitted_days", world, rng, runs)


def _forgotten(world: World, rng: random.Random, runs: int) -> Iterator[None]:
    """Lose replies of inserts whose tokens are forgotten before the inserts are repeated."""
    assert isinstance(world, LineageWorld)
    with Proxy(world.settings.clickhouse.native_port, rng.getrandbits(32)) as proxy, world.load():
        go(worker := world.worker(clickhouse_port=proxy.port))
        for run in range(1, runs + 1):
            successor = world.worker(clickhouse_port=proxy.port if run < runs else None)
            worker.wait_until_consuming()
            with world.narrow_windows():
                proxy.harm(Harm.LOSE_REPLY)
                eventually(lambda: proxy.idle, "an insert disturbed", PATIENCE_SECONDS)
                time.sleep(rng.uniform(0, 0.6))
            stop(worker)  # before it looks at the windows again
            go(worker := successor)
            yield
        worker.wait_until_consuming()


FAULTS = (
    Fault("kill -9, tables restored from a backup", 12, _restored, LineageWorld),
    Fault("kill -9, days dropped, committed rows put back", 12, _dropped, LineageWorld),
    Fault("reply lost, token forgotten (window of 2)", 12, _forgotten, LineageWorld),
)
"""The faults of the long suite."""

SAMPLE = (
    Fault("tables restored", 2, _restored, LineageWorld, load=BURSTS),
    Fault("days dropped", 2, _dropped, LineageWorld, load=BURSTS),
    Fault("tokens forgotten", 2, _forgotten, LineageWorld, load=BURSTS),
)
"""A few runs for the short suite."""
