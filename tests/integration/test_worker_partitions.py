"""Partitions of running workers: added ones are taken over soon, and workers have even shares."""

import time
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from support.events import events, settled
from support.processes import Worker, prepare

from pipeline.config import Settings
from pipeline.kafka.client import client_config
from pipeline.producer.producer import Producer

pytestmark = pytest.mark.integration

_SOON_SECONDS = 30.0


def test_added_partitions_are_read_within_30_s(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """Without a restart, from their first record on."""
    catalog = prepare(settings)
    family = catalog.family("llm_events")
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        added = AdminClient(dict(client_config(settings.kafka))).create_partitions(
            [NewPartitions(family.topic.name, 8)]
        )
        added[family.topic.name].result()
        began = time.monotonic()
        with Producer(settings, catalog) as producer:
            for event in events(family.name, 200):
                producer.send(family.name, event)
        settled(worker, settings, family, 200)
        assert time.monotonic() - began < _SOON_SECONDS
