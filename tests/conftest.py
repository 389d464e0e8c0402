"""Fixtures: a real broker, a real ClickHouse, and names in both that belong to one test."""

import gc
import getpass
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from clickhouse_driver import Client
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from hypothesis import HealthCheck
from hypothesis import settings as properties
from support.backups import StoredEvents
from support.both_paths import PATHS, path
from support.command_server import CommandServer
from support.commands import Chimera, command
from support.containers import ContainerStack, skip_without_engine
from support.events import events
from support.fork_server import ForkServer
from support.kafka_topic import Topic
from support.processes import Worker, eventually
from support.replays import UiEvents
from support.schema_registry import RegistryServer
from support.tables import create_tables
from support.verifying import Ended, Verify

from pipeline.catalog import Family, load_catalog
from pipeline.cli import main
from pipeline.clickhouse.client import connect
from pipeline.config import ENV_PREFIX, KafkaSettings, Settings, env_name, load_settings
from pipeline.devstack import Stack
from pipeline.devstack.memory_files import memory_directory
from pipeline.devstack.ports import free_port
from pipeline.producer.encode import Encoder

pytest_plugins = ["support.running"]

# A machine with other work must not make a property fail: no deadlines, and no limit on how long examples take to draw.
properties.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
properties.load_profile("any machine")

_ADMIN_SECONDS = 30.0
_MEASURED = ("test_worker", "test_monitor")  # files whose processes run lines that nothing else reaches


@pytest.fixture(autouse=True, scope="module")
def _no_client_is_left() -> None:
    """Collect the last file's Kafka clients, which are in cycles: each asks its dead broker on, with three threads.

    What is left stays, as the syntax trees of the package do, and the next collections need not walk it again. At the
    end of a file, its last test would still hold its fixtures.
    """
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that chooses between local servers and containers."""
    parser.addoption(
        "--stack",
        choices=("local", "containers"),
        default="local",
        help="run broker and ClickHouse as processes (default), or in containers with the images of docker-compose.yml",
    )


def pytest_configure() -> None:
    """Keep the tests' files in memory where there is enough of it, unless TMPDIR says where they belong."""
    if directory := memory_directory():
        _forget_earlier_runs(directory)
        os.environ["TMPDIR"] = str(directory)
        tempfile.tempdir = None  # it was chosen before


def _forget_earlier_runs(directory: Path) -> None:
    """Remove what runs that failed or were killed have left in memory; runs that go on keep theirs."""
    for left in directory.glob(f"pytest-of-{getpass.getuser()}/pytest-[0-9]*"):
        lock = left / ".lock"
        pid = lock.read_text(encoding="utf-8") if lock.exists() else ""
        if not (pid.isdigit() and psutil.pid_exists(int(pid))):
            shutil.rmtree(left, ignore_errors=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start the workers of a test that is marked `cold` with interpreters of their own."""
    if Worker.fork_server:
        Worker.fork_server.enabled = item.get_closest_marker("cold") is None


@pytest.fixture(scope="session", autouse=True)
def _fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Server that starts workers; it starts with the first worker."""
    Worker.fork_server = ForkServer(tmp_path_factory.mktemp("fork_server") / "output.log")
    yield
    Worker.fork_server.close()


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Directory for a shell's PATH, with a `chimera` that starts without its imports."""
    server = CommandServer(tmp_path_factory.mktemp("commands"))
    yield server.directory
    server.close()


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack | ContainerStack]:
    """Broker and ClickHouse, started before the first test that needs them and stopped after the last test."""
    if request.config.getoption("--stack") == "containers":
        skip_without_engine()
        with ContainerStack() as containers:
            yield containers
    else:
        with Stack(tmp_path_factory.mktemp("stack")) as local:
            yield local


@pytest.fixture(scope="session")
def schema_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """Registry with Confluent's interface, started before the first test that needs it, stopped after the last test."""
    with RegistryServer(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def environ(request: pytest.FixtureRequest, stack: Stack | ContainerStack, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Complete environment for processes of this test; `CHIMERA_` variables of the caller are left out.

    It names a database `test_<hex>`, a consumer group `test-<hex>`, topics `<hex>.…` declared in a file under tmp_path,
    and a free web port. None of them is created here; everything that the test creates under these names is deleted
    after it. Servers that an earlier test left stopped or paused run again before the test. Coverage is measured in the
    processes of the files in `_MEASURED`; elsewhere they run the same lines, and would start more slowly.
    """
    _revive(stack)
    own = secrets.token_hex(4)
    ours = {
        **stack.environment,
        env_name("kafka", "group_id"): f"test-{own}",
        env_name("clickhouse", "database"): f"test_{own}",
        env_name("topics", "file"): str(_write_topics(tmp_path / "topics.yaml", f"{own}.")),
        env_name("worker", "web_port"): str(free_port()),
        env_name("worker", "halt_seconds"): "0",  # a worker that halts isn't waited for
    }
    left_out = (ENV_PREFIX,) if request.node.path.stem.startswith(_MEASURED) else (ENV_PREFIX, "COVERAGE_PROCESS_")
    yield {name: value for name, value in os.environ.items() if not name.startswith(left_out)} | ours
    _revive(stack)
    _drop_database(stack, f"test_{own}")
    _delete_topics(stack, own)


@pytest.fixture
def settings(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings from `environ`, which is also the environment of this process while the test runs."""
    for name in os.environ.keys() - environ.keys():
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return load_settings()


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    """A connection to the test's own database with all tables."""
    create_tables(settings.clickhouse)
    with connect(settings.clickhouse) as connected:
        yield connected


@pytest.fixture
def log(settings: Settings) -> UiEvents:
    """Log and table of ui_events, without a worker."""
    return UiEvents(settings)


@pytest.fixture
def chimera(settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Chimera:
    """Run `chimera …` in this process, whose environment is that of the settings."""
    del settings
    return command(capsys, monkeypatch)


@pytest.fixture
def stored(log: UiEvents, chimera: Chimera) -> Iterator[StoredEvents]:
    """Log and table; databases and backups of the test are removed at its end."""
    made = StoredEvents(log, chimera)
    yield made
    own = log.settings.clickhouse.database
    with connect(log.settings.clickhouse, database="") as client:
        for (name,) in client.execute(
            "SELECT name FROM system.databases WHERE startsWith(name, %(own)s)", {"own": own}
        ):
            client.execute(f"DROP DATABASE `{name}` SYNC")
        for folder in made.folder(client).glob(f"{own}-*"):
            shutil.rmtree(folder)


@pytest.fixture
def replay(settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Chimera:
    """Run `chimera replay ui_events …` in this process, whose environment is that of the settings."""
    del settings
    return command(capsys, monkeypatch, "replay", "ui_events")


@pytest.fixture
def verify(settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Verify:
    """Run `chimera verify …` in this process, whose environment is that of the settings."""
    del settings

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["chimera", "verify", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def family() -> Family:
    """The family ui_events, as topics.yaml and its schema declare it."""
    return load_catalog(Settings()).family("ui_events")


@pytest.fixture(scope="session")
def valid(family: Family) -> bytes:
    """A valid value of the family, in Avro's single-object framing."""
    return Encoder(family).encode(events(family.name, 1)[0]).value


@pytest.fixture
def kafka(settings: Settings) -> KafkaSettings:
    """Settings of the broker, with the test's consumer group."""
    return settings.kafka


@pytest.fixture
def topic(kafka: KafkaSettings) -> Topic:
    """Topic that belongs to the test."""
    return Topic(kafka)


def _revive(stack: Stack | ContainerStack) -> None:
    for server in stack.servers:
        server.resume()
    stack.start()


def _write_topics(file: Path, prefix: str) -> Path:
    """Write the project's topics.yaml with prefixed names, two partitions a topic and a short linger."""
    document = yaml.safe_load((Path(__file__).parent.parent / "topics.yaml").read_text(encoding="utf-8"))
    document["defaults"]["batch"]["linger_seconds"] = 0.2
    document["topics"] = {f"{prefix}{name}": topic | {"partitions": 2} for name, topic in document["topics"].items()}
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return file


def _drop_database(stack: Stack | ContainerStack, database: str) -> None:
    client = Client("127.0.0.1", port=stack.clickhouse.port)
    client.execute(f"DROP DATABASE IF EXISTS {database} SYNC")
    client.disconnect()


def _delete_topics(stack: Stack | ContainerStack, own: str) -> None:
    """Delete the test's topics, also those that its worker created under the group's name."""
    eventually(lambda: _deleted(stack, own), "the test's topics are deleted")


def _deleted(stack: Stack | ContainerStack, own: str) -> bool:
    """Try it with a client of its own: one that asks a broker right after a freeze may never learn its controller."""
    admin = AdminClient({"bootstrap.servers": stack.kafka.bootstrap_servers})
    try:
        names = [name for name in admin.list_topics(timeout=_ADMIN_SECONDS).topics if own in name]
        for deleted in admin.delete_topics(names, request_timeout=_ADMIN_SECONDS).values() if names else ():
            deleted.result(_ADMIN_SECONDS)
    except (KafkaException, TimeoutError):
        return False
    return True


_BOTH = {  # modules whose tests run with the compiled core, and with numpy alone
    "test_aborted_batches",
    "test_decode_records",
    "test_decode_rejections",
    "test_decode_writers",
    "test_fingerprints",
    "test_packed_batches",
    "test_packed_limits",
    "test_packed_ranges",
    "test_resolution",
    "test_sanitise",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of these modules in both ways."""
    if metafunc.module.__name__.rpartition(".")[2] in _BOTH:
        metafunc.parametrize("decoding_path", PATHS, indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)  # pytest sets up no fixture that a test doesn't name
def decoding_path(request: pytest.FixtureRequest) -> Iterator[None]:
    """Decode in one of the two ways; with the core where nothing else is said."""
    with path(getattr(request, "param", PATHS[0])):
        yield
