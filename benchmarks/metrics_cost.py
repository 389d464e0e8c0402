"""Cost of the worker's metrics: CPU time of what a micro-batch calls to be counted and timed, and of a scrape.

`python -m benchmarks.metrics_cost [ROWS …]` prints a line for each size of micro-batches. It needs no server, and it
counts the CPU time of its own process, so other work on the machine changes it little. `python -m benchmarks --only
chimera --only without_metrics` compares whole workers, with the noise that whole workers have.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np

from benchmarks.machine import load_average
from pipeline import metrics
from pipeline.columns import Rows
from pipeline.metrics import Stage, timed
from pipeline.transport.micro_batch import MicroBatch
from pipeline.worker.family_metrics import FamilyMetrics

_SIZES = (50_000, 5_000, 500)
_ROUNDS, _SCRAPES = 3_000, 200
_FAMILIES = ("bench_runs", "llm_events", "ui_events", "watcher_runs", "episodes", "deployments")


def main() -> None:
    """Measure each size."""
    families = [FamilyMetrics(name) for name in _FAMILIES]
    for rows in map(int, sys.argv[1:] or _SIZES):
        seconds = _cpu_seconds(partial(_count_all, families, _Sized(rows), _Stored(rows)), _ROUNDS) / len(families)
        scrape = _cpu_seconds(metrics.exposition, _SCRAPES)
        line = f"{rows:,} rows: {seconds * 1e6:.0f} µs a micro-batch, {seconds / rows * 1e6:.4f} µs a row"
        sys.stdout.write(f"{line}; a scrape {scrape * 1e3:.1f} ms; load {load_average():.1f}\n")


class _Sized:
    """As much of a micro-batch as is counted."""

    size = 1 << 20

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return self._rows


class _Stored(_Sized):
    """As much of its rows as is counted."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.columns = {"ts": np.arange(rows)}


def _count_all(families: list[FamilyMetrics], batch: "_Sized", rows: "_Stored") -> None:
    for family in families:
        _count(family, batch, rows)


def _count(family: FamilyMetrics, batch: _Sized, rows: _Stored) -> None:
    """Make the calls that ingest, the rollup and the commits make for a micro-batch."""
    family.in_flight.inc()
    family.delivered(cast("MicroBatch", batch))
    family.decode(family.sanitising(lambda: None))
    with timed(Stage.INSERT, "ui_events"):
        pass
    family.stored(cast("Rows", cast("Any", rows)))
    family.done.inc()
    family.in_flight.dec()
    for stage in (Stage.FETCH_WAIT, Stage.COMMIT):  # shared by several micro-batches under load
        with timed(stage):
            pass
    metrics.ROLLUP_EVENTS.inc(len(batch))
    metrics.ROLLUP_SKEWED.inc(0)


def _cpu_seconds(work: Callable[[], object], rounds: int) -> float:
    """Return the CPU time of a call."""
    began = time.process_time()
    for _ in range(rounds):
        work()
    return (time.process_time() - began) / rounds


if __name__ == "__main__":
    main()
