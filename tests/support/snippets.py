"""Fenced snippets of the documentation: found, and run as a reader would run them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from support.processes import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```\s*$", re.MULTILINE | re.DOTALL)
_LANGUAGES = {"python": "python", "py": "python", "sh": "sh", "shell": "sh", "bash": "sh", "console": "sh"}


@dataclass(frozen=True, slots=True)
class Snippet:
    """A fenced block of Python or shell.

    Args:
        page: path of the page, from the root of the repository.
        line: line of the page that the block starts at.
        language: `python` or `sh`.
        text: content of the block.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """Page and line, as an editor opens them."""
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> tuple[str, ...]:
        """Commands of a shell snippet, without comments and blank lines; continued lines are joined."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        lines = (re.sub(r"(^|\s+)#\s.*$", "", line).strip() for line in joined.splitlines())
        return tuple(line for line in lines if line)


def snippets() -> Iterator[Snippet]:
    """All Python and shell snippets of README.md, CONTRIBUTING.md and docs/."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        for match in _FENCE.finditer(text):
            if language := _LANGUAGES.get(match["language"]):
                line = text.count("\n", 0, match.start()) + 1
                yield Snippet(page.relative_to(ROOT).as_posix(), line, language, match["text"])


def run_python(text: str, environ: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a Python snippet in an interpreter of its own, at the root of the repository."""
    return _run([sys.executable, "-c", text], environ)


def run_shell(command: str, environ: Mapping[str, str], commands: Path) -> "subprocess.CompletedProcess[str]":
    """Run a shell command at the root of the repository.

    Args:
        command: the command.
        environ: its environment; in PATH, `commands` and the commands of this interpreter's environment come first.
        commands: directory with a quick `chimera`.
    """
    path = os.pathsep.join([str(commands), str(Path(sys.executable).parent), environ["PATH"]])
    return _run(["bash", "-euo", "pipefail", "-c", command], {**environ, "PATH": path})


def _run(command: list[str], environ: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        env=dict(environ),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_SECONDS,
        check=False,
    )
