"""A command of `chimera` in this process, and its end."""

import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from pipeline.cli import main


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


def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> Chimera:
    """Return a function that runs a command of `chimera` in this process, with more arguments."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["chimera", *words, *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run
