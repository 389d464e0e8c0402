"""`chimera top`: the state of the pipeline, live."""

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.live import Live
from rich.text import Text

from pipeline.catalog import load_catalog
from pipeline.cli.monitored import from_monitor, looked_at_once
from pipeline.cli.status_output import screen
from pipeline.cli.terminal import terminal
from pipeline.config import Settings, load_settings
from pipeline.errors import UnavailableError
from pipeline.logs import be_silent
from pipeline.operations.monitor.state import PipelineState
from pipeline.operations.monitor.watch import Watch

_FRAME_SECONDS = 1.0
_BARS_FROM = 100
"""Columns of a terminal that has room for the last hour."""
_BARS = 30
_ENDS = frozenset("qQ\x04")  # Ctrl-C is a signal


@click.command()
@click.option(
    "--url", metavar="URL", help="Ask this running monitor instead of looking, such as http://127.0.0.1:6067."
)
def top(url: str | None) -> None:
    """Show the state of the pipeline, live.

    Draws it anew each second; q or Ctrl-C ends it. A terminal of 100 columns also shows the last hour. In a pipe it
    prints one frame, as `chimera status` does.

    \b
    Exit codes:
      0   ended by q or Ctrl-C, or the frame is printed
      69  the monitor doesn't answer
      78  a setting, topics.yaml or a schema is wrong

    \b
    Examples:
      chimera top
      chimera top --url http://127.0.0.1:6067
    """
    settings = load_settings()
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        state = from_monitor(url, settings.monitor.answer_seconds) if url else looked_at_once(settings)
        console = terminal()
        console.print(screen(state, console.width))
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, so the terminal is restored
    be_silent()  # a line of the log would tear the frame
    with _watched(settings, url) as look:
        _run(look)


@contextmanager
def _watched(settings: Settings, url: str | None) -> Iterator[Callable[[], PipelineState]]:
    if url:
        yield lambda: from_monitor(url, settings.monitor.answer_seconds)
        return
    watch = Watch(settings, load_catalog(settings))
    watch.start()
    try:
        yield watch.state
    finally:
        watch.stop(0)


def _run(look: Callable[[], PipelineState]) -> None:
    console = terminal()
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                bars = _BARS if console.width >= _BARS_FROM else 0
                live.update(screen(look(), console.width, bars=bars), refresh=True)
            except UnavailableError as error:
                live.update(Text(str(error)), refresh=True)
            if _ENDS.intersection(pressed(_FRAME_SECONDS)):
                return


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Read keys without a line's end; the terminal is as before afterwards."""
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    tty.setcbreak(stdin)

    poll = select.poll()
    poll.register(stdin, select.POLLIN)

    def pressed(seconds: float) -> str:
        ready = poll.poll(seconds * 1000)
        return (os.read(stdin, 64).decode("latin-1") or "\x04") if ready else ""  # nothing to read: the input has ended

    try:
        yield pressed
    except KeyboardInterrupt:
        pass
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
