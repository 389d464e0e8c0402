"""The development stack with its real servers, as a library and as `chimera stack`."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from clickhouse_driver import Client
from confluent_kafka.admin import AdminClient, NewTopic
from support.commands import Forked, forked
from support.kafka_requests import answer_to
from support.processes import in_foreground

from pipeline.catalog import load_topics
from pipeline.config import Settings
from pipeline.devstack import Stack
from pipeline.devstack.lock import holder
from pipeline.devstack.ports import HOST, free_port
from pipeline.errors import UnavailableError

pytestmark = pytest.mark.integration

_SECONDS = 120
_NO_NETWORK = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")


def _up(directory: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", "stack", "up", f"--directory={directory}", *arguments]


def _free_ports() -> list[str]:
    return [f"--{name}-port={free_port()}" for name in ("kafka", "clickhouse", "http")]


@pytest.fixture
def chimera(tmp_path: Path, commands: Path) -> Iterator[Forked]:
    """Run `chimera stack VERB` on a directory of the test; a stack left running is stopped after the test."""
    chimera = forked(commands, os.environ, "stack")

    def run(verb: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return chimera(verb, f"--directory={tmp_path / 'stack'}", *arguments, **variables)

    yield run
    run("down")


@pytest.fixture
def foreground(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`chimera stack up` with both servers ready; killed after the test if it still runs."""
    with subprocess.Popen(
        in_foreground(_up(tmp_path / "stack", *_free_ports())),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("export CHIMERA_KAFKA__BOOTSTRAP_SERVERS=")
            yield process
        finally:
            process.kill()


def _servers(directory: Path) -> list[psutil.Process]:
    """Processes of both servers."""
    pids = [holder(server.lock_file) for server in Stack(directory).servers]
    return [psutil.Process(pid) for pid in pids if pid]


def _survivors(processes: list[psutil.Process]) -> list[psutil.Process]:
    return list(psutil.wait_procs(processes, timeout=_SECONDS)[1])


def test_every_test_has_names_of_its_own(settings: Settings) -> None:
    """Database, group and topics have the same unique part, and don't exist yet."""
    own = settings.clickhouse.database.removeprefix("test_")
    assert settings.kafka.group_id == f"test-{own}"
    assert all(topic.name.startswith(f"{own}.chimera.") for topic in load_topics(settings.topics.file))
    client = Client(settings.clickhouse.host, port=settings.clickhouse.native_port)
    assert (settings.clickhouse.database,) not in client.execute("SHOW DATABASES")


def test_a_restart_keeps_data_and_ports_and_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second stack in the same directory has the addresses and the data of the first."""
    with Stack(tmp_path) as first:
        admin = AdminClient({"bootstrap.servers": first.kafka.bootstrap_servers})
        answer_to(lambda: admin.create_topics([NewTopic("kept", 3)])["kept"])
        client = Client(HOST, port=first.clickhouse.port)
        client.execute("CREATE DATABASE kept")
        client.execute("CREATE TABLE kept.numbers ENGINE = MergeTree ORDER BY number AS SELECT * FROM numbers(7)")
        client.disconnect()

    for name, value in _NO_NETWORK.items():
        monkeypatch.setenv(name, value)
    with Stack(tmp_path) as second:
        assert second.environment == first.environment
        admin = AdminClient({"bootstrap.servers": second.kafka.bootstrap_servers})
        assert len(admin.list_topics(timeout=_SECONDS).topics["kept"].partitions) == 3
        client = Client(HOST, port=second.clickhouse.port)
        assert client.execute("SELECT count() FROM kept.numbers") == [(7,)]
        client.disconnect()


def test_a_directory_is_for_one_stack_at_a_time(
    tmp_path: Path, foreground: subprocess.Popen[str], chimera: Forked
) -> None:
    """A second stack is refused, the message names the first one's process, and the first goes on."""
    assert foreground.poll() is None
    with pytest.raises(UnavailableError, match=r"is in use by a running ClickHouse server \(process \d+\)"):
        Stack(tmp_path / "stack").start()
    second = chimera("up")
    assert second.returncode == 69
    assert f"is in use by a running development stack (process {foreground.pid})" in second.stderr
    assert len(_servers(tmp_path / "stack")) == 2


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)],
    ids=["Ctrl-C", "terminate", "kill"],
)
def test_no_server_outlives_its_stack(
    number: signal.Signals, exit_code: int, tmp_path: Path, foreground: subprocess.Popen[str]
) -> None:
    """Both servers end with `chimera stack up`, whatever ends it."""
    servers = _servers(tmp_path / "stack")
    assert len(servers) == 2
    os.killpg(foreground.pid, number)  # as a terminal does it: the whole group
    assert foreground.wait(_SECONDS) == exit_code
    assert _survivors(servers) == []


def test_a_stack_of_a_background_job_ends_by_sigterm(tmp_path: Path) -> None:
    """A background job of a shell ignores SIGINT; SIGTERM ends the stack and both servers."""
    ignored = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", ignored, *_up(tmp_path / "stack", *_free_ports())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
        try:
            assert job.stdout is not None
            assert job.stdout.readline().startswith("export CHIMERA_KAFKA__BOOTSTRAP_SERVERS=")
            servers = _servers(tmp_path / "stack")
            assert len(servers) == 2
            job.terminate()
            assert job.wait(_SECONDS) == 0
        finally:
            job.kill()
    assert _survivors(servers) == []


def test_a_server_that_ends_by_itself_is_started_again(tmp_path: Path, foreground: subprocess.Popen[str]) -> None:
    """When the database dies, the broker goes on. A database that dies again at once ends the stack, and is named."""
    database, broker = _servers(tmp_path / "stack")
    database.kill()
    database.wait(_SECONDS)
    assert foreground.stderr is not None
    assert foreground.stderr.readline().startswith("Running; ")
    said = [foreground.stderr.readline(), foreground.stderr.readline()]
    log = tmp_path / "stack/clickhouse/server.log"
    assert said == [
        f"ClickHouse server ended by itself, starting it again; see {log}\n",
        "ClickHouse server answers again\n",
    ]
    assert broker.is_running()
    for again in _servers(tmp_path / "stack"):
        if again != broker:
            again.kill()
    _, complaint = foreground.communicate(timeout=_SECONDS)
    assert foreground.returncode == 69
    assert complaint == f"chimera: ClickHouse server ended by itself again; see {log}\n"
    assert _survivors([broker]) == []


def test_a_detached_stack_is_shown_and_stopped(chimera: Forked, tmp_path: Path) -> None:
    """The stack outlives its command, `status` describes it, `down` stops it, and a second `down` does nothing."""
    up = chimera("up", "--detach", *_free_ports(), **_NO_NETWORK)
    assert up.returncode == 0
    status = chimera("status", "--json")
    shown = json.loads(status.stdout)
    assert status.returncode == 0
    assert shown["running"] is True
    assert [f"export {name}={value}" for name, value in shown["environment"].items()] == up.stdout.splitlines()
    servers = _servers(tmp_path / "stack")
    assert [server["process"] for server in shown["servers"]] == [server.pid for server in servers]
    http = next(server["addresses"]["http_port"] for server in shown["servers"] if "ClickHouse" in server["name"])
    assert f"HTTP http://{http} " in chimera("status").stdout
    with urllib.request.urlopen(f"http://{http}/play", timeout=_SECONDS) as page:
        assert b"<html" in page.read()
    assert all(server["rss_bytes"] > 0 and server["uptime_seconds"] > 0 for server in shown["servers"])
    supervisor = psutil.Process(shown["process"])

    assert chimera("up", "--detach").returncode == 69
    down = chimera("down")
    assert (down.returncode, down.stdout) == (0, "")
    assert _survivors([supervisor, *servers]) == []
    assert chimera("status").returncode == 3
    assert chimera("down").returncode == 0


@pytest.mark.parametrize("detach", [(), ("--detach",)], ids=["foreground", "detached"])
@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--kafka-port", "Kafka broker: port {} is taken"),
        ("--clickhouse-port", "ClickHouse server: port {} is taken"),
        ("--http-port", "ClickHouse server: http port {} is taken"),
    ],
)
def test_a_taken_port_is_named(
    option: str, complaint: str, detach: tuple[str, ...], chimera: Forked, tmp_path: Path
) -> None:
    """One line names the server and its port, before any server is started."""
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        up = chimera("up", *_free_ports(), f"{option}={port}", *detach)
    assert (up.returncode, up.stdout) == (69, "")
    assert up.stderr.startswith(f"chimera: {complaint.format(port)}; ")
    assert up.stderr.count("\n") == 1
    assert not any(server.output_file.exists() for server in Stack(tmp_path / "stack").servers)
    assert chimera("status").returncode == 3


def test_locks_left_by_a_crash_harm_no_other_process(chimera: Forked, tmp_path: Path) -> None:
    """A lock that isn't held counts as free, and the process it names isn't stopped."""
    stack = Stack(tmp_path / "stack")
    with subprocess.Popen(["sleep", "60"]) as bystander:
        for lock in (stack.lock_file, *(server.lock_file for server in stack.servers)):
            lock.parent.mkdir(parents=True, exist_ok=True)
            lock.write_text(str(bystander.pid), encoding="utf-8")
        assert chimera("status").returncode == 3
        assert chimera("down").stderr == f"No server is running in {stack.directory}.\n"
        assert bystander.poll() is None
        bystander.terminate()


def test_an_impossible_download_is_explained(chimera: Forked, tmp_path: Path) -> None:
    """Without a network and without jars, one line names the jar and the repository."""
    up = chimera("up", XDG_CACHE_HOME=str(tmp_path), **_NO_NETWORK)
    assert up.returncode == 69
    assert up.stderr.startswith("chimera: can't download ")
    assert up.stderr.count("\n") == 1


@pytest.mark.parametrize("detach", [(), ("--detach",)], ids=["foreground", "detached"])
def test_an_unusable_directory_is_named(detach: tuple[str, ...], chimera: Forked, tmp_path: Path) -> None:
    """A file in place of the directory gives one line and exit code 78."""
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack/kafka").touch()
    up = chimera("up", *_free_ports(), *detach)
    assert up.returncode == 78
    assert up.stderr == f"chimera: {tmp_path / 'stack/kafka'}: File exists; expected a directory for the Kafka broker\n"
