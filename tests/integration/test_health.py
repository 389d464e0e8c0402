"""The container's health check, run as the image runs it, against a live worker."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.processes import Worker, prepare

from pipeline.config import Settings, env_name
from pipeline.devstack import Stack

pytestmark = pytest.mark.integration

_DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"


def _health_check(environ: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run the command of the Dockerfile's HEALTHCHECK, with this interpreter as its `python`."""
    found = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", _DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    program, *arguments = json.loads(found[1])
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
        assert _health_check(environ).returncode == 0
