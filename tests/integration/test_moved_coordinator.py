"""The coordinator of a group moves, or loads the group, while a worker or a replay asks for the commits."""

import struct
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path

import pytest
from support.events import events, publish, settled
from support.kafka_cluster import KafkaCluster
from support.kafka_proxy import OFFSET_FETCH
from support.kafka_topic import Topic
from support.processes import PATIENCE_SECONDS, Worker, eventually, prepare

from pipeline.catalog import Family
from pipeline.clickhouse.client import connect
from pipeline.config import Settings, env_name, load_settings
from pipeline.errors import UnavailableError
from pipeline.producer.encode import Encoder
from pipeline.transport.adapter.log_reader import LogReader
from pipeline.transport.broker import Commit

pytestmark = pytest.mark.integration

_EVENTS = 20_000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """Two brokers of the module's own."""
    with KafkaCluster(tmp_path_factory.mktemp("cluster")) as cluster:
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
    eventually(lambda: cluster.coordinator(settings.kafka.group_id) == 1, "broker 1 coordinates the group")
    with ExitStack() as running:
        with cluster.proxy(1).holding(OFFSET_FETCH, client="faust") as held:
            worker = running.enter_context(Worker(environ, tmp_path / "log"))
            assert held.wait(PATIENCE_SECONDS), "the worker asks for the commits"
            cluster.move_coordinator()
        eventually(lambda: cluster.coordinator(settings.kafka.group_id) == 2, "broker 2 coordinates the group")
        worker.wait_until_consuming()
        _publish(settings, family, 30)
        settled(worker, settings, family, 30)
        worker.wait_for(lambda: worker.ready, "ready")
    assert _rows(settings) == _EVENTS + 30


@pytest.mark.parametrize("code", [14, 16], ids=["LOAD_IN_PROGRESS", "NOT_COORDINATOR"])
def test_a_replay_asks_again_while_the_commits_are_refused(
    settings: Settings, cluster: KafkaCluster, code: int
) -> None:
    """An error of the whole group isn't an answer without commits: a replay would find nothing to replay."""
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": cluster.bootstrap_servers})
    topic = Topic(kafka)
    topic.produce([b"one", b"two"])
    topic.commit(2, "kept")
    with LogReader(kafka, topic.name) as reader, _refusing(cluster, code, 4):
        assert reader.commits(kafka.group_id) == {0: Commit(2, "kept")}
    refused = rf"topic {topic.name}: .*{kafka.group_id}.*\(code {code}\)"
    with (
        LogReader(kafka, topic.name, refused_seconds=0.5) as reader,
        _refusing(cluster, code, None),
        pytest.raises(UnavailableError, match=refused),
    ):
        reader.commits(kafka.group_id)


def _refusing(cluster: KafkaCluster, code: int, times: int | None) -> ExitStack:
    """Refuse a group's commits as its coordinator would, so often or always."""
    refusals = repeat(True) if times is None else repeat(True, times)

    def reply(request: bytes) -> bytes | None:
        _, api_key, version, correlation = struct.unpack_from(">ihhi", request)
        if api_key != OFFSET_FETCH or not next(refusals, False):
            return None
        assert version == 3
        body = struct.pack(">iiih", correlation, 0, 0, code)  # not throttled, no topics
        return struct.pack(">i", len(body)) + body

    with ExitStack() as refusing:
        for number in (1, 2):
            refusing.enter_context(cluster.proxy(number).answering(reply))
        return refusing.pop_all()


def _publish(settings: Settings, family: Family, count: int) -> None:
    publish(settings, family.topic.name, [Encoder(family).encode(event).value for event in events(family.name, count)])


def _rows(settings: Settings) -> int:
    with connect(settings.clickhouse) as client:
        return int(client.execute("SELECT count() FROM ui_events")[0][0])
