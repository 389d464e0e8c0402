"""A worker that can't go on logs the reason in one line, acknowledges nothing, and ends with its exit code."""

import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.processes import Worker, lag, last_word, prepare

from pipeline.clickhouse.client import connect
from pipeline.config import Settings, env_name
from pipeline.devstack.clickhouse import ClickHouseServer, ClickHouseUser
from pipeline.errors import ConfigError, HaltError
from pipeline.producer.producer import Producer
from pipeline.producer.sample import sample

pytestmark = pytest.mark.integration

_PASSWORD = "correct horse"
_EVENTS = 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    writer = ClickHouseUser("writer", _PASSWORD, grants=("GRANT INSERT ON *.*",))
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse"), users=[writer]) as own:
        yield own


def publish(settings: Settings) -> str:
    """Publish events of one family; return the topic."""
    catalog = prepare(settings)
    start = datetime(2026, 1, 31, tzinfo=UTC)
    with Producer(settings, catalog) as producer:
        for family, event in sample(_EVENTS, seed=9, start=start, hours=1, families=["ui_events"]):
            producer.send(family, event)
    return catalog.family("ui_events").topic.name


def as_writer(environ: dict[str, str], server: ClickHouseServer, password: str) -> dict[str, str]:
    """Environment of a worker that logs in to the server that checks passwords."""
    login = {"port": str(server.port), "user": "writer", "password": password}
    return environ | {env_name("clickhouse", key): value for key, value in login.items()}


def test_a_wrong_password_halts(
    settings: Settings, environ: dict[str, str], server: ClickHouseServer, tmp_path: Path
) -> None:
    """The line names user and setting, and doesn't show the password."""
    topic = publish(settings)
    with Worker(as_writer(environ, server, "hunter2"), tmp_path / "log") as worker:
        line = last_word(worker, HaltError.exit_code)
    where = f"ClickHouse at 127.0.0.1:{server.port} refuses user 'writer' or the password"
    assert f"{where}; check CHIMERA_CLICKHOUSE__USER and CHIMERA_CLICKHOUSE__PASSWORD" in line
    assert "hunter2" not in line
    assert lag(settings, topic) == _EVENTS


def test_the_right_password_lets_the_worker_in(
    settings: Settings, environ: dict[str, str], server: ClickHouseServer, tmp_path: Path
) -> None:
    """A user with no more than the right to insert is enough to store everything."""
    topic = publish(settings)
    prepare(settings.model_copy(update={"clickhouse": settings.clickhouse.model_copy(update={"port": server.port})}))
    with Worker(as_writer(environ, server, _PASSWORD), tmp_path / "log") as worker:
        worker.wait_until_consuming()
        worker.wait_for(lambda: lag(settings, topic) == 0, "everything committed")
        assert worker.metric("chimera_rows_inserted_total") == _EVENTS


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param(
            "DROP TABLE ui_events", ".ui_events at {address}: missing; create it with `chimera mi", id="table"
        ),
        pytest.param("ALTER TABLE ui_events DROP COLUMN metadata", "no column for field metadata of ui_", id="column"),
    ],
)
def test_a_table_that_does_not_fit(
    settings: Settings, environ: dict[str, str], tmp_path: Path, before: str, expected: str
) -> None:
    """The worker finds the difference before it consumes a record."""
    topic = publish(settings)
    with connect(settings.clickhouse) as client:
        client.execute(before)
    with Worker(environ, tmp_path / "log") as worker:
        assert expected.format(address=settings.clickhouse.address) in last_word(worker, HaltError.exit_code)
    assert lag(settings, topic) == _EVENTS


def test_missing_topics(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """The line names the broker, the topic, and the command that creates it."""
    with Worker(environ, tmp_path / "log") as worker:
        line = last_word(worker, HaltError.exit_code)
    assert f"Kafka at {settings.kafka.bootstrap_servers}: no topic " in line
    assert "create it with `chimera topics apply`" in line


def test_a_table_altered_under_the_worker(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """The worker stops and acknowledges nothing; with the table mended, the next worker stores everything, once."""
    prepare(settings)
    environ = {**environ, env_name("worker", "drain_seconds"): "1"}
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        with connect(settings.clickhouse) as client:
            client.execute("ALTER TABLE ui_events RENAME COLUMN metadata TO details")
        topic = publish(settings)
        line = last_word(worker, HaltError.exit_code)
        assert f"ClickHouse at {settings.clickhouse.address}: No such column metadata in table" in line
        assert "column metadata: expected String, found none" in line
    assert lag(settings, topic) == _EVENTS
    with connect(settings.clickhouse) as client:
        client.execute("ALTER TABLE ui_events RENAME COLUMN details TO metadata")
        with Worker(environ, tmp_path / "log") as worker:
            worker.wait_until_consuming()
            worker.wait_for(lambda: lag(settings, topic) == 0, "everything committed")
        assert client.execute("SELECT count() FROM ui_events") == [(_EVENTS,)]


def _value(_: Path) -> dict[str, str]:
    return {env_name("kafka", "session_timeout_seconds"): "soon"}


def _typo(_: Path) -> dict[str, str]:
    return {"CHIMERA_KAFKA__BOOTSTRAP_SERVER": "127.0.0.1:9092"}


def _topics(directory: Path) -> dict[str, str]:
    file = directory / "own.yaml"
    file.write_text("version: 1\ntopics:\n  ui:\n    partitions: many\n", encoding="utf-8")
    return {env_name("topics", "file"): str(file)}


def _schema(directory: Path) -> dict[str, str]:
    text = '{"type": "record", "name": "E", "fields": [{"name": "ts", "type": "long", "min": "early"}]}'
    (directory / "ui_events.v1.avsc").write_text(text, encoding="utf-8")
    return {env_name("schemas", "directory"): str(directory)}


def _authority(_: Path) -> dict[str, str]:
    return {env_name("clickhouse", "ca_cert"): "/nowhere/ca.pem"}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        pytest.param(_value, ["CHIMERA_KAFKA__SESSION_TIMEOUT_SECONDS", "expected a number"], id="a setting's value"),
        pytest.param(
            _typo, ["CHIMERA_KAFKA__BOOTSTRAP_SERVER", "did you mean CHIMERA_KAFKA__B"], id="a setting's name"
        ),
        pytest.param(_topics, ["own.yaml", "topics.ui.partitions", "a whole number", "many"], id="topics.yaml"),
        pytest.param(_schema, ["ui_events.v1.avsc", "ts.min", "expected a number"], id="a schema"),
        pytest.param(_authority, ["CHIMERA_CLICKHOUSE__CA_CERT", "file"], id="a certificate's file"),
    ],
)
def test_wrong_configuration(
    environ: dict[str, str], tmp_path: Path, wrong: Callable[[Path], dict[str, str]], named: list[str]
) -> None:
    """One line names the variable, or the file and its key, and the expected value."""
    directory = tmp_path / "wrong"
    directory.mkdir()
    with Worker({**environ, **wrong(directory)}, tmp_path / "log") as worker:
        line = last_word(worker, ConfigError.exit_code)
    assert line.startswith("chimera: ")
    assert all(name in line for name in named), line


def test_the_web_servers_value_is_taken(environ: dict[str, str], tmp_path: Path) -> None:
    """Another worker on the same machine may have the port."""
    with socket.create_server(("127.0.0.1", int(environ[env_name("worker", "web_port")]))) as taken:
        with Worker(environ, tmp_path / "log") as worker:
            line = last_word(worker, ConfigError.exit_code)
        address = ":".join(map(str, taken.getsockname()))
    assert f"CHIMERA_WORKER__WEB_PORT: expected a port to listen on, got {address}: Address already in use" in line
