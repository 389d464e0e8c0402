"""The containers' health checks, run as image and compose run them, against a live worker and a live monitor."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from support.monitors import running_monitor
from support.processes import Worker, prepare

from pipeline.config import Settings, env_name
from pipeline.devstack import Stack

pytestmark = pytest.mark.integration

_DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"


_COMPOSE = _DOCKERFILE.with_name("docker-compose.yml")


def _health_check(environ: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run the command of the Dockerfile's HEALTHCHECK, with this interpreter as its `python`."""
    found = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", _DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return _run(json.loads(found[1]), environ)


def _run(command: list[str], environ: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    program, *arguments = command
    assert program == "python"
    return subprocess.run([sys.executable, *arguments], env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "127.0.0.3", "localhost"])
def test_a_worker_becomes_healthy(host: str, settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """The health check succeeds for a running worker on whichever address it listens, and fails once it has ended."""
    prepare(settings)
    environ = environ | {env_name("worker", "web_host"): host}
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_for(lambda: worker.lines("consuming"), "consuming")
        healthy = _health_check(environ)
        assert (healthy.returncode, healthy.stderr) == (0, "")
        worker.terminate()
        ended = _health_check(environ)
        assert ended.returncode == 1
        assert "/live" in ended.stderr


def test_a_worker_without_clickhouse_stays_healthy(
    stack: Stack, settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """A worker that waits for ClickHouse is healthy: a restart wouldn't help it."""
    prepare(settings)
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        stack.clickhouse.stop()
        worker.wait_for(lambda: worker.waiting, "not ready")
        assert _health_check(environ).returncode == 0


def test_a_monitor_becomes_healthy(settings: Settings, environ: dict[str, str]) -> None:
    """The health check of its service asks the monitor and not a worker; it fails once the monitor has ended."""
    prepare(settings)
    service = yaml.safe_load(_COMPOSE.read_text(encoding="utf-8"))["services"]["monitor"]
    mark, *command = service["healthcheck"]["test"]
    assert mark == "CMD"
    with running_monitor(environ) as monitor:
        environ = environ | {env_name("monitor", "web_port"): str(monitor.port)}
        healthy = _run(command, environ)
        assert (healthy.returncode, healthy.stderr) == (0, "")
    ended = _run(command, environ)
    assert ended.returncode == 1
    assert f"{monitor.port}/live" in ended.stderr
