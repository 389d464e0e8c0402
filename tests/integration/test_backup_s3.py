"""Backups in S3: made, verified, restored and removed through a real S3 interface, and no secret in any log."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.backups import StoredEvents
from support.commands import Chimera
from support.replication import engine
from support.replication.replicas import CompletedServer
from support.s3_server import S3Server

from pipeline.config import env_name

pytestmark = pytest.mark.integration

_REMOVE = "import pathlib, shutil, sys; shutil.rmtree(pathlib.Path(sys.argv[1]) / sys.argv[2], ignore_errors=True)"
_SEEN_BY_OTHERS = (
    "SELECT name, base_backup_name, error FROM system.backups",
    "SELECT query, exception, Settings FROM system.query_log",
    "SELECT * FROM chimera_backups",
)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CompletedServer, S3Server]]:
    """A ClickHouse that has the threads of backups in S3, and S3."""
    if not engine.is_known():
        pytest.skip(f"the engine of the installed wheel isn't that of {engine.BUILD}")
    directory = tmp_path_factory.mktemp("s3")
    clickhouse, s3 = CompletedServer(directory / "clickhouse"), S3Server(directory / "s3")
    s3.launch()
    with clickhouse, s3:
        yield clickhouse, s3


@pytest.fixture
def s3(servers: tuple[CompletedServer, S3Server]) -> S3Server:
    """The S3 server; an earlier test may have stopped it."""
    servers[1].start()
    return servers[1]


@pytest.fixture
def environ(environ: dict[str, str], servers: tuple[CompletedServer, S3Server], s3: S3Server) -> dict[str, str]:
    """Environment with S3 as the destination."""
    remove = f'{sys.executable} -c "{_REMOVE}" {s3.folder / "chimera"} {{name}}'
    return environ | {
        env_name("clickhouse", "port"): str(servers[0].port),
        env_name("backup", "s3_url"): f"{s3.url}/chimera",
        env_name("backup", "s3_access_key"): s3.access_key,
        env_name("backup", "s3_secret_key"): s3.secret_key,
        env_name("backup", "s3_attempts"): "2",
        env_name("backup", "remove_command"): remove,
    }


def test_a_chain_in_s3(
    stored: StoredEvents, chimera: Chimera, s3: S3Server, servers: tuple[CompletedServer, S3Server]
) -> None:
    """A full and an incremental backup are listed, verified, restored beside, damaged and removed."""
    own = stored.log.settings.clickhouse.database
    stored.add(300)
    full = stored.backup("--full")
    stored.add(200)
    grown = stored.backup()
    assert (grown["base"], grown["destination"]) == (full["name"], f"s3:{s3.url}/chimera")
    said = [chimera("backup", "list", "--json").stdout]
    for command in (("backup", "verify"), ("backup", "restore", "--execute")):
        done = chimera(*command[:2], grown["name"], *command[2:])
        assert done.returncode == 0, done
        said += [done.stdout, done.stderr]
    assert stored.has(f"{own}_restored", 500)
    (part,) = [path for path in _objects(s3, grown["name"]) if path.match("ui_events/*/data.bin")][:1]
    content = part.read_bytes()
    part.unlink()
    damaged = chimera("backup", "verify", grown["name"])
    assert (damaged.returncode, "it can't be restored" in damaged.stdout) == (1, True), damaged
    part.write_bytes(content)

    stored.backup("--full")
    pruned = chimera("backup", "prune", "--keep-days", "0", "--execute")
    assert pruned.returncode == 0, pruned
    assert not _objects(s3, full["name"])
    assert not _objects(s3, grown["name"])
    said += [damaged.stdout, pruned.stdout, *(path.read_text() for path in _logs(servers)), *_seen_by_others(stored)]
    assert s3.access_key in "".join(said)  # so that a secret would be seen, too
    assert not any("Secret" in text or "Secret" in repr(text) for text in said)


def test_what_s3_refuses_is_said(
    stored: StoredEvents, chimera: Chimera, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong key, a missing bucket and an S3 that is away fail in seconds, and no backup counts as damaged."""
    stored.add(20)
    name = stored.backup("--full")["name"]
    for setting, value, said in (
        ("s3_secret_key", "another-key", "403"),
        ("s3_url", s3.url.replace(s3.bucket, "nothing"), "bucket"),
        ("s3_url", "http://127.0.0.1:1/backups", "refused"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(env_name("backup", setting), value)
            failed = chimera("backup", "create", "--full")
        assert failed.returncode == 70, failed
        assert said in failed.stderr
        assert env_name("backup", "s3_url") in failed.stderr
        assert "Stack trace" not in failed.stderr
    with monkeypatch.context() as patch:
        patch.setenv(env_name("backup", "s3_secret_key"), "another-key")
        assert chimera("backup", "verify", name).returncode == 70
        assert chimera("backup", "restore", name, "--execute").returncode == 70
    s3.stop()
    assert chimera("backup", "verify", name).returncode == 70
    s3.start()
    assert chimera("backup", "verify", name).returncode == 0
    states = {each["name"]: each["state"] for each in chimera("backup", "list", "--json").facts["backups"]}
    assert (states.pop(name), set(states.values())) == ("ok", {"failed"})


def _objects(s3: S3Server, name: str) -> list[Path]:
    return [path for path in (s3.folder / "chimera" / name).rglob("*") if path.is_file()]


def _logs(servers: tuple[CompletedServer, S3Server]) -> list[Path]:
    return [file for server in servers for file in (server.log_file, server.output_file)]


def _seen_by_others(stored: StoredEvents) -> list[str]:
    with stored.log.client() as client:
        client.execute("SYSTEM FLUSH LOGS")
        return [str(client.execute(query)) for query in _SEEN_BY_OTHERS]
