"""The coordinator of the group moves from one broker to another while a worker takes its partitions over."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.events import events, publish, settled
from support.kafka_cluster import KafkaCluster
from support.kafka_proxy import OFFSET_FETCH
from support.processes import PATIENCE_SECONDS, Worker, eventually, prepare

from pipeline.catalog import Family
from pipeline.clickhouse.client import connect
from pipeline.config import Settings, env_name, load_settings
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration

_EVENTS = 20_000


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KafkaCluster]:
    """Two brokers of the test's own."""
    with KafkaCluster(tmp_path / "cluster") as cluster:
        yield cluster


@pytest.fixture
def environ(environ: dict[str, str], cluster: KafkaCluster) -> dict[str, str]:
    """Environment for processes that use these brokers, through their proxies."""
    return {**environ, env_name("kafka", "bootstrap_servers"): cluster.bootstrap_servers}


def test_a_coordinator_that_moves_during_a_takeover_stores_nothing_twice(
    settings: Settings, environ: dict[str, str], cluster: KafkaCluster, tmp_path: Path
) -> None:
    """The broker that was the coordinator answers without any commit, and the worker asks the other one."""
    settings = load_settings()
    family = prepare(settings).family("ui_events")
    _publish(settings, family, _EVENTS)
    with Worker(environ, tmp_path / "first.log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, _EVENTS)
        assert worker.terminate() == 0
    cluster.make_coordinator_movable()
    assert cluster.coordinator(settings.kafka.group_id) == 1
    with ExitStack() as running:
        with cluster.proxy(1).holding(OFFSET_FETCH, client="faust") as held:
            worker = running.enter_context(Worker(environ, tmp_path / "log"))
            assert held.wait(PATIENCE_SECONDS), "the worker asks for the commits"
            cluster.move_coordinator()
        eventually(lambda: cluster.coordinator(settings.kafka.group_id) == 2, "broker 2 coordinates the group")
        worker.wait_until_consuming()
        _publish(settings, family, 30)
        settled(worker, settings, family, 30)
        assert worker.ready
    assert _rows(settings) == _EVENTS + 30


def _publish(settings: Settings, family: Family, count: int) -> None:
    publish(settings, family.topic.name, [Encoder(family).encode(event).value for event in events(family.name, count)])


def _rows(settings: Settings) -> int:
    with connect(settings.clickhouse) as client:
        return int(client.execute("SELECT count() FROM ui_events")[0][0])
