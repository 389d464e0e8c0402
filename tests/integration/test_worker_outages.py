"""Outages of servers and stops of the worker: no event is lost, and none is stored twice."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.containers import ContainerStack
from support.processes import Worker, beside, lag, prepare

from pipeline.catalog import Catalog
from pipeline.clickhouse.client import connect
from pipeline.config import Settings, env_name
from pipeline.devstack import Stack
from pipeline.devstack.ports import free_port
from pipeline.producer.producer import Producer
from pipeline.producer.sample import sample

pytestmark = pytest.mark.integration

_FEW_LINES = 3
_MAX_ROWS = 100
_STOP_SECONDS = 10


def events(count: int, first: int = 0) -> Iterator[dict[str, Any]]:
    """Events whose latency is their number."""
    start = datetime(2026, 1, 31, tzinfo=UTC)
    for at, (_, event) in enumerate(sample(count, seed=5, start=start, hours=1, families=["ui_events"])):
        yield {**event, "latency_ms": first + at}


def publish(settings: Settings, catalog: Catalog, count: int, first: int = 0) -> None:
    with Producer(settings, catalog) as producer:
        for event in events(count, first):
            producer.send("ui_events", event)


@contextmanager
def load(settings: Settings, catalog: Catalog, count: int) -> Iterator[None]:
    """Publish events during the context; all of them are published when it ends."""
    with beside(lambda: publish(settings, catalog, count)):
        yield


def stored(settings: Settings) -> tuple[int, int]:
    """Number of rows, and number of distinct ones."""
    with connect(settings.clickhouse) as client:
        (counts,) = client.execute("SELECT count(), uniqExact(latency_ms) FROM ui_events")
    rows, distinct = counts
    return rows, distinct


@pytest.fixture
def catalog(settings: Settings) -> Catalog:
    """Topics and tables of the test, with so small micro-batches that a worker always has many in flight."""
    declared = yaml.safe_load(settings.topics.file.read_text(encoding="utf-8"))
    declared["defaults"]["batch"]["max_rows"] = _MAX_ROWS
    settings.topics.file.write_text(yaml.safe_dump(declared), encoding="utf-8")
    return prepare(settings)


def test_clickhouse_restarted_under_load(
    settings: Settings,
    catalog: Catalog,
    environ: dict[str, str],
    stack: Stack | ContainerStack,
    tmp_path: Path,
) -> None:
    """The worker isn't ready while ClickHouse is gone; it goes on by itself, and stores each event once."""
    environ = {**environ, env_name("worker", "retry_backoff_max_seconds"): "1"}
    count = 20_000
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        with load(settings, catalog, count):
            worker.wait_for(lambda: worker.metric("chimera_rows_inserted_total") > 0, "some rows stored")
            stack.clickhouse.stop()  # killed at the wrong instant, a plain MergeTree keeps a token without its rows
            assert worker.metric("chimera_rows_inserted_total") < count
            worker.wait_for(lambda: worker.waiting, "not ready while ClickHouse is gone")
            assert worker.metric("chimera_retrying") > 0
        stack.clickhouse.start()
        worker.wait_for(lambda: worker.ready, "ready again")
        worker.wait_for(lambda: worker.metric("chimera_rows_inserted_total") == count, "all rows stored")
        assert worker.metric("chimera_retrying") == 0
        assert worker.lines("trouble begins")
        assert worker.lines("trouble is over")
        assert worker.terminate() == 0
    assert stored(settings) == (count, count)
    assert lag(settings, catalog.family("ui_events").topic.name) == 0


@pytest.mark.parametrize("server", ["clickhouse", "kafka"])
def test_a_server_away_for_longer_than_a_session(  # noqa: PLR0917 (fixtures, and what the test is for)
    settings: Settings,
    catalog: Catalog,
    environ: dict[str, str],
    stack: Stack | ContainerStack,
    tmp_path: Path,
    server: str,
) -> None:
    """The worker holds a bounded number of records, keeps its partitions if the broker is there, and catches up."""
    session = 6.0 if server == "kafka" else 15.0  # 6 is the least that a broker allows; the worker must be heard in it
    environ = {
        **environ,
        env_name("kafka", "session_timeout_seconds"): f"{session}",
        env_name("kafka", "heartbeat_interval_seconds"): "1",
        env_name("worker", "retry_backoff_max_seconds"): "1",
    }
    count, topic = 5_000, catalog.family("ui_events").topic.name
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        away = getattr(stack, server)
        if server == "kafka":
            publish(settings, catalog, count)
            worker.wait_for(lambda: worker.metric("chimera_rows_inserted_total") > 0, "some rows stored")
        away.kill()
        if server == "clickhouse":
            publish(settings, catalog, count)
            worker.wait_for(lambda: worker.waiting, "not ready")
        time.sleep(1.5 * session)
        held = worker.metric("chimera_records_consumed_total") - worker.metric("chimera_rows_inserted_total")
        assert held <= 2 * settings.worker.batches_in_flight * _MAX_ROWS
        away.start()
        worker.wait_for(lambda: stored(settings) == (count, count), "all stored")
        worker.wait_for(lambda: lag(settings, topic) == 0, "everything committed")
        worker.wait_for(lambda: worker.ready, "ready")
        if server == "clickhouse":
            assert len(worker.lines("consuming")) == 1  # without a rebalance
        assert worker.terminate() == 0
    assert stored(settings) == (count, count)


def test_a_worker_stopped_under_load(
    settings: Settings, catalog: Catalog, environ: dict[str, str], tmp_path: Path
) -> None:
    """SIGTERM ends the worker soon and with 0; the next worker stores the rest, and no row twice."""
    count = 30_000
    with load(settings, catalog, count), Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        worker.wait_for(lambda: worker.metric("chimera_rows_inserted_total") > 0, "some rows stored")
        assert worker.terminate(_STOP_SECONDS) == 0
    before = stored(settings)
    assert before[0] < count
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        worker.wait_for(lambda: stored(settings)[1] == count, "the rest stored")
        assert worker.metric("chimera_rows_inserted_total") == count - before[0]
    assert stored(settings) == (count, count)


def test_a_worker_stopped_while_clickhouse_is_silent(
    settings: Settings, catalog: Catalog, environ: dict[str, str], stack: Stack | ContainerStack, tmp_path: Path
) -> None:
    """The worker doesn't wait for an answer that may never come; the next worker stores the events."""
    environ = {**environ, env_name("worker", "drain_seconds"): "0.5"}
    count = 1_000
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        stack.clickhouse.pause()
        publish(settings, catalog, count)
        worker.wait_for(lambda: worker.metric("chimera_records_consumed_total") > 0, "an insert under way")
        assert worker.terminate(_STOP_SECONDS) == 0
    stack.clickhouse.resume()
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        worker.wait_for(lambda: stored(settings)[1] == count, "all stored")
    assert stored(settings) == (count, count)


def test_a_broker_restarted_under_load(
    settings: Settings,
    catalog: Catalog,
    environ: dict[str, str],
    stack: Stack | ContainerStack,
    tmp_path: Path,
) -> None:
    """The worker goes on by itself, and stores each event once."""
    count = 5_000
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        publish(settings, catalog, count)
        worker.wait_for(lambda: worker.metric("chimera_rows_inserted_total") > 0, "some rows stored")
        stack.kafka.kill()
        stack.kafka.start()
        publish(settings, catalog, count, first=count)
        worker.wait_for(lambda: stored(settings)[1] == 2 * count, "all stored")
        topic = catalog.family("ui_events").topic.name
        worker.wait_for(lambda: lag(settings, topic) == 0, "committed up to the end")
        assert 1 <= len(worker.lines("Unable connect to node")) <= _FEW_LINES
        assert worker.terminate() == 0
    assert stored(settings) == (2 * count, 2 * count)


def test_no_server_at_the_start(
    settings: Settings,
    catalog: Catalog,
    environ: dict[str, str],
    stack: Stack | ContainerStack,
    tmp_path: Path,
) -> None:
    """The worker logs the name and address of the server that it waits for; when both are there, events flow."""
    publish(settings, catalog, 100)
    for server in stack.servers:
        server.stop()
    with Worker(environ, tmp_path / "log") as worker:
        kafka = f"Kafka at {settings.kafka.bootstrap_servers} is not available: "
        worker.wait_for(lambda: worker.lines(kafka), "a line about Kafka")
        stack.kafka.start()
        clickhouse = f"ClickHouse at {settings.clickhouse.address} is not available: Connection refused"
        worker.wait_for(lambda: worker.lines(clickhouse), "a line about ClickHouse")
        assert "Traceback" not in worker.log
        stack.clickhouse.start()
        worker.wait_until_consuming()
        worker.wait_for(lambda: worker.metric("chimera_rows_inserted_total") == 100, "rows stored")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_worker_that_waits_can_be_stopped(
    number: signal.Signals, catalog: Catalog, environ: dict[str, str], tmp_path: Path
) -> None:
    """The worker ends at once, and without a stack trace."""
    assert catalog
    environ = {**environ, env_name("clickhouse", "port"): str(free_port())}
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_for(lambda: worker.lines("ClickHouse at "), "a line about ClickHouse")
        began = time.monotonic()
        worker.process.send_signal(number)
        assert worker.wait() == 0
        assert time.monotonic() - began < _STOP_SECONDS
        assert "Traceback" not in worker.log
