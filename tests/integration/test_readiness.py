"""A worker that doesn't reach Kafka isn't ready, and says why; it is ready again when it goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.events import events, publish, settled
from support.kafka_cluster import KafkaCluster
from support.monitors import running_monitor
from support.processes import Worker, eventually, prepare

from pipeline.config import Settings, env_name, load_settings
from pipeline.devstack import Stack
from pipeline.errors import UnavailableError
from pipeline.kafka.standing import GroupObserver
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration

_OTHER_BROKER = 2


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KafkaCluster]:
    """Two brokers; the first one coordinates all groups."""
    with KafkaCluster(tmp_path / "cluster") as cluster:
        cluster.make_coordinator_movable()
        yield cluster


@pytest.mark.parametrize("trouble", ["silent", "gone"])
def test_a_worker_that_kafka_does_not_answer_is_not_ready(
    settings: Settings, environ: dict[str, str], stack: Stack, tmp_path: Path, trouble: str
) -> None:
    """Also without records under way, whose commit would be missed."""
    family = prepare(settings).family("ui_events")
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        (stack.kafka.pause if trouble == "silent" else stack.kafka.kill)()
        worker.wait_for(lambda: f"group {settings.kafka.group_id}: no answer" in worker.why_not_ready, "not ready")
        assert worker.running
        (stack.kafka.resume if trouble == "silent" else stack.kafka.start)()
        worker.wait_for(lambda: worker.ready, "ready again")
        publish(settings, family.topic.name, [Encoder(family).encode(event).value for event in events(family.name, 20)])
        settled(worker, settings, family, 20)


def test_a_worker_with_partitions_that_no_broker_leads_is_not_ready(
    settings: Settings, environ: dict[str, str], cluster: KafkaCluster, tmp_path: Path
) -> None:
    """It names them; the others are consumed. The monitor names them too, and sees the others: Kafka isn't away."""
    environ = {**environ, env_name("kafka", "bootstrap_servers"): cluster.bootstrap_servers}
    del settings
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(env_name("kafka", "bootstrap_servers"), cluster.bootstrap_servers)
        prepare(load_settings())
    with running_monitor(environ) as monitor, Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        cluster.broker(_OTHER_BROKER).stop()
        worker.wait_for(lambda: "no broker leads" in worker.why_not_ready, "not ready")
        worker.wait_for(lambda: "partition-without-leader" in monitor.troubles(), "the monitor knows")
        seen = monitor.state()
        assert seen["kafka"]["verdict"] == "ok"
        for family in seen["families"]:
            unknown = [part["partition"] for part in family["partitions"] if part["end"] is None]
            assert family["leaderless"] == unknown
            assert len(unknown) < len(family["partitions"]) or family["name"] != "ui_events"
        cluster.broker(_OTHER_BROKER).start()
        worker.wait_for(lambda: worker.ready, "ready again")
        worker.wait_for(lambda: "partition-without-leader" not in monitor.troubles(), "all partitions have leaders")


def test_the_monitor_looks_on_without_a_broker_that_was_killed(
    settings: Settings, cluster: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster lists the broker for some seconds more, so a client that asks once goes on asking that broker."""
    del settings
    monkeypatch.setenv(env_name("kafka", "bootstrap_servers"), cluster.bootstrap_servers)
    own = load_settings()
    topics = [topic.name for topic in prepare(own).topics]
    observer = GroupObserver(own.kafka, topics, answer_seconds=4.0)
    assert not observer.look(anew=True).leaderless
    cluster.broker(_OTHER_BROKER).kill()

    def sees_the_others() -> bool:
        try:
            standing = observer.look(anew=False)
        except UnavailableError:
            return False
        return bool(standing.leaderless and standing.ends)

    eventually(sees_the_others, "a look at the partitions of the other broker")
