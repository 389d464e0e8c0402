"""Worker and commands run in environments whose output encoding isn't UTF-8."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.processes import Worker, prepare

from pipeline.cli import COMMANDS, cli
from pipeline.config import Settings, env_name
from pipeline.devstack.worker import WORKER_COMMAND

pytestmark = pytest.mark.integration

_ENCODINGS = [
    pytest.param({"PYTHONIOENCODING": "ascii"}, id="ascii"),
    pytest.param({"PYTHONIOENCODING": "latin-1"}, id="latin-1"),
    pytest.param({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, id="C locale"),
]

_EACH_HELP = """
import json, sys
from pipeline.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["chimera", *arguments]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, arguments
    print(end="\\0")
"""


def _chimera(environ: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, check=False)


@pytest.mark.parametrize("encoding", _ENCODINGS)
def test_the_worker_runs_with_any_output_encoding(
    encoding: dict[str, str], settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """The worker starts, consumes and stops, whatever the encoding of its output."""
    prepare(settings)
    with Worker(environ | encoding, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        assert worker.terminate() == 0
        assert "Traceback" not in worker.log


@pytest.mark.parametrize("closed", [">&-", "<&- >&-"])
def test_the_worker_runs_without_standard_output(
    closed: str, settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """A supervisor may have closed it; the log is on standard error."""
    prepare(settings)
    with Worker(environ, tmp_path / "log", ["sh", "-c", f'exec "$@" {closed}', "sh", *WORKER_COMMAND]) as worker:
        worker.wait_until_consuming()
        assert worker.terminate() == 0
        assert "Traceback" not in worker.log


@pytest.mark.parametrize("encoding", _ENCODINGS)
def test_commands_print_with_any_output_encoding(
    encoding: dict[str, str], environ: dict[str, str], tmp_path: Path
) -> None:
    """A topic to alter, a value and a directory with characters that the encoding lacks are shown all the same."""
    # In the C locale, Python can't read such a value from the environment: settings refuse it in one line.
    user = "Zoë→" if "PYTHONIOENCODING" in encoding else "Zoe"
    environ = environ | encoding | {env_name("registry", "user"): user}
    assert _chimera(environ, "topics", "apply", "--yes").returncode == 0
    topics = tmp_path / "topics.yaml"
    declared = yaml.safe_load(topics.read_text(encoding="utf-8"))
    next(iter(declared["topics"].values()))["partitions"] = 3
    topics.write_text(yaml.safe_dump(declared, sort_keys=False), encoding="utf-8")
    shown = [_chimera(environ, "topics", "plan"), _chimera(environ, "config", "show")]
    assert [done.returncode for done in shown] == [2, 0], shown
    shown.append(_chimera(environ, "stack", "status", "--directory", str(tmp_path / "→")))
    assert shown[2].returncode == 3
    for done in shown:
        assert done.stdout
        assert b"Traceback" not in done.stderr


def test_help_is_printed_in_latin_1(environ: dict[str, str]) -> None:
    """The help of each command and of its subcommands is printed where the encoding lacks some of its characters."""
    wanted = [["--help"]]
    for name in COMMANDS:
        command = cli.get_command(None, name)  # type: ignore[arg-type] # our group needs no context
        wanted += [
            [name, *filter(None, [subcommand]), "--help"] for subcommand in ["", *getattr(command, "commands", {})]
        ]
    assert len(wanted) > 30
    # One process: each start costs as much as all this help.
    program = [sys.executable, "-c", _EACH_HELP, json.dumps(wanted)]
    done = subprocess.run(program, env=environ | {"PYTHONIOENCODING": "latin-1"}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    printed = done.stdout.split(b"\0")[:-1]
    assert len(printed) == len(wanted)
    for arguments, text in zip(wanted, printed, strict=True):
        assert b"Usage:" in text, arguments
