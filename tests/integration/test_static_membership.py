"""Workers with names of their own in the group: a quick restart needs no rebalance, and a name has one owner."""

import time
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from support.events import as_stored, bag, events, rows, settled
from support.kafka_requests import answer_to
from support.processes import Worker, last_word, prepare

from pipeline.config import Settings, env_name
from pipeline.devstack.ports import free_port
from pipeline.errors import HaltError
from pipeline.kafka.client import client_config
from pipeline.producer.producer import Producer

pytestmark = pytest.mark.integration

_SESSION_SECONDS = 150.0  # longer than the test waits for anything
_RESTART_SECONDS = 120.0


def _named(environ: dict[str, str], name: str) -> dict[str, str]:
    """Return the environment of a worker with a name and a web port of its own."""
    return {
        **environ,
        env_name("kafka", "instance_id"): name,
        env_name("kafka", "session_timeout_seconds"): f"{_SESSION_SECONDS}",
        env_name("worker", "web_port"): str(free_port()),
    }


def test_a_killed_worker_has_its_partitions_back_at_once(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """Long before the session times out, without a rebalance of the other worker; each event is stored once."""
    catalog = prepare(settings)
    family = catalog.family("ui_events")
    each = events(family.name, 400)
    one = _named(environ, "one")
    with Worker(one, tmp_path / "one") as first, Worker(_named(environ, "two"), tmp_path / "two") as second:
        first.wait_until_consuming()
        second.wait_until_consuming()
        first.wait_for(lambda: first.lines("partitions=6") and second.lines("partitions=6"), "shared")
        with Producer(settings, catalog) as producer:
            for event in each[:200]:
                producer.send(family.name, event)
        first.kill()
        began, rebalances = time.monotonic(), len(second.lines("consuming"))
        with Producer(settings, catalog) as producer:
            for event in each[200:]:
                producer.send(family.name, event)
        with Worker(one, tmp_path / "one") as again:
            again.wait_until_consuming()
            assert time.monotonic() - began < _RESTART_SECONDS
            again.wait_for(lambda: len(rows(settings, family.table)) >= len(each), "stored")
            assert again.lines("partitions=6")
            assert len(second.lines("consuming")) == rebalances
            assert bag(rows(settings, family.table)) == bag([as_stored(family, event) for event in each])
            assert again.terminate() == 0


def test_the_older_of_two_workers_with_one_name_ends(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """With one line, exit code 70, and the name of the setting; the newer one goes on."""
    catalog = prepare(settings)
    family = catalog.family("ui_events")
    with Worker(_named(environ, "one"), tmp_path / "older") as older:
        older.wait_until_consuming()
        with Worker(_named(environ, "one"), tmp_path / "newer") as newer:
            newer.wait_until_consuming()
            said = last_word(older, HaltError.exit_code)
            assert "FENCED_INSTANCE_ID" in said
            assert env_name("kafka", "instance_id") in said
            with Producer(settings, catalog) as producer:
                for event in events(family.name, 100):
                    producer.send(family.name, event)
            settled(newer, settings, family, 100)
            assert len(newer.lines("consuming")) == 1


def test_a_leader_that_comes_back_takes_added_partitions_over(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """Kafka makes no new assignment when it comes back, so nobody else would look for added partitions."""
    catalog = prepare(settings)
    family = catalog.family("llm_events")
    named = _named(environ, "one")
    with Worker(named, tmp_path / "first") as first:
        first.wait_until_consuming()
        first.kill()
    with Worker(named, tmp_path / "again") as again:
        again.wait_until_consuming()
        admin = AdminClient(dict(client_config(settings.kafka)))
        answer_to(lambda: admin.create_partitions([NewPartitions(family.topic.name, 8)])[family.topic.name])
        with Producer(settings, catalog) as producer:
            for event in events(family.name, 100):
                producer.send(family.name, event)
        settled(again, settings, family, 100)
        assert again.lines("partitions=18")
