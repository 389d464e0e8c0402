"""A worker with a read-only root, as compose and Kubernetes run the image: it only writes temporary files."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.events import events, settled
from support.processes import Worker, prepare

from pipeline.config import Settings
from pipeline.devstack.worker import WORKER_COMMAND
from pipeline.producer.producer import Producer

pytestmark = pytest.mark.integration

# A mount namespace of its own, in which `$0` is a copy of the root that can't be written to, but for temporary files.
_READ_ONLY = """
set -e
mount --bind / "$0" && mount -o remount,bind,ro "$0"
mount --bind /dev "$0/dev" && mount --bind /proc "$0/proc" && mount --bind "${TMPDIR:-/tmp}" "$0${TMPDIR:-/tmp}"
if touch "$0/written" 2>/dev/null; then exit 99; fi
exec chroot "$0" "$@"
"""


def _command(root: Path, *command: str) -> list[str]:
    return ["unshare", "--mount", "sh", "-c", _READ_ONLY, str(root), *command]


def test_a_worker_stores_rows_with_a_read_only_root(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """It starts, answers, stores, commits and ends well, where only temporary files can be written."""
    root = tmp_path / "root"
    root.mkdir()
    tried = subprocess.run(_command(root, sys.executable, "-c", ""), capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no mount namespace for this user: {tried.stderr.strip()}")
    family = prepare(settings).family("ui_events")
    with Producer(settings) as producer:
        for event in events("ui_events", 50):
            producer.send("ui_events", event)
    with Worker(environ, tmp_path / "log", _command(root, *WORKER_COMMAND)) as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, 50)
        assert worker.terminate() == 0
