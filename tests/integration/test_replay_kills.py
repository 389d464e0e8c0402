"""A replay that is killed or stopped goes on where the table says that it stood."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from support.commands import Chimera
from support.events import rows
from support.processes import eventually, in_foreground
from support.replays import UiEvents

from pipeline.config import Settings
from pipeline.devstack.process import spawn

pytestmark = pytest.mark.integration

_RECORDS = 2_000
_CHUNK = 100
_SLOW, _FAST = "400", "1000000"


@pytest.fixture
def log(settings: Settings) -> UiEvents:
    """A log that is replayed in chunks of a hundred records."""
    document = yaml.safe_load(settings.topics.file.read_text())
    document["defaults"]["batch"]["max_rows"] = _CHUNK
    settings.topics.file.write_text(yaml.safe_dump(document))
    log = UiEvents(settings)
    log.produce(_RECORDS)
    return log


def test_a_killed_or_interrupted_replay_goes_on(
    log: UiEvents, replay: Chimera, environ: Mapping[str, str], tmp_path: Path
) -> None:
    """No row is missing or there twice, after a kill -9 and after Ctrl-C; the limit changes while it runs."""
    rate = tmp_path / "rate"
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        rate.write_text(_SLOW)
        running = _start(environ, rate, tmp_path / f"{number}.log")
        before = log.stored()[0]
        eventually(lambda before=before: log.stored()[0] >= before + _CHUNK, "some rows filled")  # type: ignore[misc]
        running.send_signal(number)
        assert running.wait(30) == code
        rows_now, different = log.stored()
        assert rows_now == different < _RECORDS
    assert "run the same command again" in (tmp_path / f"{signal.SIGINT}.log").read_text()
    running = _start(environ, rate, tmp_path / "last.log")
    rate.write_text(_FAST)
    assert running.wait(60) == 0
    assert log.complete(rows(log.settings, "ui_events"))
    assert replay("--execute", "--json").facts["inserted"] == 0


def _start(environ: Mapping[str, str], rate: Path, output: Path) -> "subprocess.Popen[bytes]":
    chimera = str(Path(sys.executable).with_name("chimera"))
    arguments = ["replay", "ui_events", "--execute", "--max-rows-per-second", f"@{rate}"]
    return spawn(in_foreground([chimera, *arguments]), dict(environ), output)
