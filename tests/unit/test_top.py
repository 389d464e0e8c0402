"""`chimera top` in a pseudo terminal: it is live, follows the terminal's size, and leaves the terminal as it was."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.pipeline_states import busy, clickhouse_away
from support.processes import eventually, in_foreground

from pipeline.devstack.ports import free_port
from pipeline.operations.monitor.state import PipelineState
from pipeline.operations.monitor.web import MonitorWeb
from pipeline.tool_settings import MonitorSettings

_ENTER, _LEAVE, _CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
# Only the terminal that controls a process sends it signals.
_LOGIN = "import os, sys; os.login_tty(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class _Terminal:
    """A program in a terminal of its own, and all that it has written."""

    def __init__(self, port: int) -> None:
        self.ours, self._theirs = pty.openpty()
        self.resize(80, 24)
        self.before = termios.tcgetattr(self._theirs)
        command = [sys.executable, "-m", "pipeline.cli", "top", "--url", f"http://127.0.0.1:{port}"]
        environ = {**os.environ, "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environ.pop(name, None)
        login = [sys.executable, "-c", _LOGIN, str(self._theirs)]
        self.process = subprocess.Popen(in_foreground([*login, *command]), env=environ, pass_fds=[self._theirs])
        self.text = ""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def wait_for(self, text: str) -> None:
        eventually(lambda: text in self._read(), f"{text!r} on the terminal")

    def frame(self) -> list[str]:
        """Return the lines of the newest frame."""
        return _ESCAPES.sub("", self._read().rpartition("\x1b[H")[2]).splitlines()

    def ended(self) -> int:
        """Wait for the end; return the exit code."""
        eventually(lambda: self._read() and self.process.poll() is not None, "the end")
        self._read()  # what it wrote last
        return self.process.wait()

    def attributes(self) -> list[object]:
        return termios.tcgetattr(self._theirs)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self._theirs)

    def _read(self) -> str:
        poll = select.poll()  # select() takes no descriptor above 1023
        poll.register(self.ours, select.POLLIN)
        while poll.poll(50):
            self.text += os.read(self.ours, 65536).decode()
        return self.text


@contextmanager
def _served(state: Callable[[], PipelineState]) -> Iterator[int]:
    port = free_port()
    web = MonitorWeb(MonitorSettings(web_port=port), state)
    thread = threading.Thread(target=web.serve, daemon=True)
    thread.start()
    yield port
    web.stop()
    thread.join()


@contextmanager
def _top(port: int) -> Iterator[_Terminal]:
    terminal = _Terminal(port)
    try:
        terminal.wait_for("group chimera")
        yield terminal
    finally:
        terminal.close()


def test_it_is_live_and_follows_the_size_of_the_terminal() -> None:
    """A frame fits into 80 columns and 24 rows; a new state and a wider terminal are drawn by themselves; q ends it."""
    state = busy()
    with _served(lambda: state) as port, _top(port) as terminal:
        assert _ENTER in terminal.text
        frame = terminal.frame()
        assert (max(map(len, frame)) <= 80, len(frame) <= 24) == (True, True)
        assert "last hour" not in terminal.text
        state = clickhouse_away()
        terminal.wait_for("is away")
        terminal.resize(120, 40)
        terminal.wait_for("last hour")
        terminal.type("xq")
        assert terminal.ended() == 0
        assert _LEAVE in terminal.text
        assert _CURSOR in terminal.text
        assert terminal.attributes() == terminal.before


@pytest.mark.parametrize("end", ["ctrl-c", "term"])
def test_the_terminal_is_restored_at_every_end(end: str) -> None:
    """Ctrl-C and SIGTERM end it without a trace, with exit code 0."""
    with _served(busy) as port, _top(port) as terminal:
        if end == "ctrl-c":
            terminal.type("\x03")
        else:
            terminal.process.send_signal(signal.SIGTERM)
        assert terminal.ended() == 0
        assert _LEAVE in terminal.text
        assert "Traceback" not in terminal.text
        assert "Aborted" not in terminal.text
        assert terminal.attributes() == terminal.before
