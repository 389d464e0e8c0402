"""A command that the tests' command server runs is what the installed `chimera` would be."""

import os
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_server import CommandServer
from support.commands import forked
from support.processes import PATIENCE_SECONDS, eventually

from pipeline.config import env_name
from pipeline.errors import ConfigError


@pytest.fixture(scope="module")
def chimera(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = CommandServer(tmp_path_factory.mktemp("commands"))
    yield str(server.directory / "chimera")
    server.close()


def _run(chimera: str, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return forked(Path(chimera).parent, os.environ)(*arguments, **environ)


def test_a_command_has_its_own_arguments_environment_and_streams(chimera: str) -> None:
    """The exit code and the output are those of the command."""
    shown = _run(chimera, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("Usage: chimera [OPTIONS]")
    refused = _run(chimera, "topics", "plan", **{env_name("kafka", "session_timeout_seconds"): "soon"})
    assert (refused.returncode, refused.stdout) == (ConfigError.exit_code, "")
    assert refused.stderr.startswith("chimera: CHIMERA_KAFKA__SESSION_TIMEOUT_SECONDS")
    assert _run(chimera, "no such command").returncode == 2


def test_a_command_ends_with_its_client(chimera: str, tmp_path: Path) -> None:
    """A command that a test has to end is no process that is left behind."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [chimera, "produce", "ui_events", "--dry-run", "--file", str(pipe)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as client:
        assert client.stdout is not None
        writer = eventually(lambda: _opened(pipe), "the command reads the pipe")
        assert writer is not None
        try:  # it waits for a line
            client.kill()
            client.wait()
            assert select.select([client.stdout], [], [], PATIENCE_SECONDS)[0], "the command still has its streams"
            assert client.stdout.read() == b""
        finally:
            os.close(writer)


def _opened(pipe: Path) -> int | None:
    """Open a pipe that has a reader; None while it has none."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None
