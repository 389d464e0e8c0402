"""A command of `chimera` in this process or in one of its own, and its end."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline.cli import main
from support.processes import PATIENCE_SECONDS


class Ended(NamedTuple):
    """Exit code and output of a command."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def facts(self) -> dict[str, Any]:
        """The JSON object that it printed."""
        facts: dict[str, Any] = json.loads(self.stdout)
        return facts


Chimera = Callable[..., Ended]
Forked = Callable[..., "subprocess.CompletedProcess[str]"]


def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> Chimera:
    """Return a function that runs a command of `chimera` in this process, with more arguments."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["chimera", *words, *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run


def forked(commands: Path, environ: Mapping[str, str], *words: str) -> Forked:
    """Return a function that runs `chimera` without a terminal in a process of its own, with more words and variables.

    Args:
        commands: directory of the fixture of this name.
        environ: environment of the process.
        words: first arguments.
    """

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [commands / "chimera", *words, *arguments],
            env=dict(environ) | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    return run
