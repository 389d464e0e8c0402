"""Worker that counts and times nothing; the difference to the real worker is the cost of its metrics."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from faust.cli.faust import cli
from prometheus_client import Counter, Gauge, Histogram

from pipeline import metrics
from pipeline.worker.family_metrics import FamilyMetrics


def _nothing(*_: Any, **__: Any) -> None:
    """Count nothing."""


def _itself(self: Any, *_: Any, **__: Any) -> Any:
    return self


def _call(_: FamilyMetrics, function: Callable[[], Any]) -> Any:
    return function()


def _as_it_is(_: FamilyMetrics, function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def _count_nothing() -> None:
    """Replace what the worker calls for its metrics; later imports get the replacements."""
    counting = {Counter: ("inc",), Gauge: ("inc", "dec", "set"), Histogram: ("observe",)}
    for kind, methods in counting.items():
        for method in ("labels", *methods):
            setattr(kind, method, _itself if method == "labels" else _nothing)
    metrics.ManyDurations.add = _nothing  # type: ignore[method-assign] # the benchmark measures without it
    for method in ("delivered", "stored", "rejected"):
        setattr(FamilyMetrics, method, _nothing)
    for method, replacement in {"decode": _call, "sanitising": _as_it_is}.items():
        setattr(FamilyMetrics, method, replacement)
    metrics.timed = lambda *_: nullcontext()  # type: ignore[assignment] # its users are imported after this


if __name__ == "__main__":
    _count_nothing()
    cli()
