"""Progress bars on standard error, shown only on a terminal."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.cli.terminal import terminal

T = TypeVar("T")


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yield a display with one bar per task; the bars vanish when the block ends."""
    console = terminal(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


def tracked(items: Iterable[T], total: int | None, what: str) -> Iterator[T]:
    """Yield the items, and show their progress."""
    with progress_bar() as progress:
        yield from progress.track(items, total=total, description=what)
