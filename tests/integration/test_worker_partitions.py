"""Partitions of running workers: added ones are taken over soon, and workers have even shares."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from support.events import events, settled
from support.faust_member import Member, numbers, small_batches, until, values_of
from support.kafka_requests import answer_to
from support.kafka_topic import Topic
from support.processes import Worker, prepare

from pipeline.config import KafkaSettings, Settings, env_name
from pipeline.devstack.ports import free_port
from pipeline.kafka.client import client_config
from pipeline.producer.producer import Producer
from pipeline.transport.adapter.assignor import BalancedAssignor

pytestmark = pytest.mark.integration

_SOON_SECONDS = 30.0


def test_added_partitions_are_read_within_30_s(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """Without a restart, from their first record on."""
    catalog = prepare(settings)
    family = catalog.family("llm_events")
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        admin = AdminClient(dict(client_config(settings.kafka)))
        answer_to(lambda: admin.create_partitions([NewPartitions(family.topic.name, 8)])[family.topic.name])
        began = time.monotonic()
        with Producer(settings, catalog) as producer:
            for event in events(family.name, 200):
                producer.send(family.name, event)
        settled(worker, settings, family, 200)
        assert time.monotonic() - began < _SOON_SECONDS


def test_three_workers_share_all_topics_evenly(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """Twelve partitions of six topics are four for each; topic by topic, the third worker would have none."""
    prepare(settings)
    workers = [
        Worker({**environ, env_name("worker", "web_port"): str(free_port())}, tmp_path / name)
        for name in ("one", "two", "three")
    ]
    with workers[0], workers[1], workers[2]:
        for worker in workers:
            worker.wait_for(lambda one=worker: one.lines("partitions=4"), "an even share")  # type: ignore[misc]
        assert (
            sum(int(worker.lines("consuming")[-1].partition("partitions=")[2].split()[0]) for worker in workers) == 12
        )


@pytest.mark.parametrize("leader", ["earlier", "this"])
def test_workers_of_an_earlier_version_share_a_group_with_those_of_this_one(kafka: KafkaSettings, leader: str) -> None:
    """Either may lead: each partition has one owner, and each record is delivered once, as in a rolling upgrade."""
    topic = Topic(kafka, partitions=6)
    assignors: list[dict[str, Any]] = [{}, {"PartitionAssignor": BalancedAssignor}]

    async def scenario() -> None:
        options = small_batches(topic.name)
        first, second = (
            Member(kafka, options, **of) for of in (assignors if leader == "earlier" else reversed(assignors))
        )
        async with first:
            await until(lambda: first.partitions == 6, "alone")
            async with second:
                await until(lambda: first.partitions == second.partitions == 3, "shared")
                for partition in range(6):
                    await asyncio.to_thread(topic.produce, numbers(10), partition)
                each = sorted(numbers(10) * 6)
                seen: list[bytes | None] = []
                while len(seen) < len(each):
                    for member in (first, second):
                        while not await member.idle_for(0.05):
                            seen += values_of(await member.take_records(1))
                assert sorted(map(bytes, filter(None, seen))) == each
            await until(lambda: first.partitions == 6, "alone again")

    asyncio.run(scenario())
