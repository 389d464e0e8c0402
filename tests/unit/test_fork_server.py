"""Workers that the tests' fork server starts are what `python -m` would start."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fork_server import Forked, ForkServer
from support.processes import PATIENCE_SECONDS

from pipeline.config import env_name
from pipeline.errors import ConfigError

_FAUST = [sys.executable, "-m", "faust"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    running = ForkServer(tmp_path_factory.mktemp("fork_server") / "output.log")
    yield running
    running.close()


def _start(server: ForkServer, log: Path, command: list[str], environ: dict[str, str]) -> Forked:
    started = server.start(command, environ, log)
    assert started is not None
    assert started.stdin is not None
    started.stdin.close()
    return started


def test_a_child_has_its_own_arguments_environment_and_output(server: ForkServer, tmp_path: Path) -> None:
    """The exit code and the log are those of the command."""
    version = _start(server, tmp_path / "version", [*_FAUST, "--version"], dict(os.environ))
    wrong = {**os.environ, env_name("kafka", "session_timeout_seconds"): "soon"}
    refused = _start(server, tmp_path / "refused", [*_FAUST, "-A", "pipeline", "worker"], wrong)
    assert version.wait(PATIENCE_SECONDS) == version.poll() == 0
    assert "0.15" in (tmp_path / "version").read_text()
    assert refused.wait(PATIENCE_SECONDS) == ConfigError.exit_code
    (line,) = (tmp_path / "refused").read_text().splitlines()
    assert line.startswith("chimera: CHIMERA_KAFKA__SESSION_TIMEOUT_SECONDS")


def test_a_child_can_be_stopped_and_continued_and_killed(server: ForkServer, tmp_path: Path) -> None:
    """Signals reach it, as long as it runs."""
    victim = server.start([sys.executable, "-m", "chaos.victim"], dict(os.environ), tmp_path / "log")
    assert victim is not None
    victim.send_signal(signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        victim.wait(0.1)
    assert victim.poll() is None
    victim.kill()
    assert victim.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    victim.terminate()  # does nothing


@pytest.mark.parametrize(
    ("command", "variable"),
    [([*_FAUST, "worker"], "FAUST_DEBUG"), (["nohup", *_FAUST], "TMPDIR"), ([sys.executable, "-m", "pip"], "TMPDIR")],
    ids=["other variables", "another command", "another module"],
)
def test_other_programs_need_interpreters_of_their_own(
    server: ForkServer, tmp_path: Path, command: list[str], variable: str
) -> None:
    """A library may read any variable while it is imported, so that only CHIMERA's own may differ."""
    assert server.start(command, {**os.environ, variable: "1"}, tmp_path / "log") is None


def test_a_cold_test_has_no_fork_server(server: ForkServer, tmp_path: Path) -> None:
    """Tests with the marker `cold` start their workers as a user does."""
    server.enabled = False
    try:
        assert server.start([*_FAUST, "--version"], dict(os.environ), tmp_path / "log") is None
    finally:
        server.enabled = True
