"""Conversion of windows: to rows of session_stats, to columns of a snapshot, and back from these columns."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Column
from pipeline.rollup.fold import HOUR_MS, WINDOW, Windows, halves, whole

_BESIDES = [name for name in WINDOW.names or () if name not in {"high", "low"}]
"""Names of a window's fields without its session."""


def rows_of(hour: int, windows: Windows) -> dict[str, Column]:
    """Return the session_stats rows of an hour's windows, columns in the table's order.

    Args:
        hour: hours since 1970.
        windows: sorted by session; the rows have the same order.
    """
    events, opens = windows["events"].astype(np.int64), windows["opens"]
    abandoned = opens - windows["answered"]
    return {
        "hour": np.full(len(windows), hour * HOUR_MS // 1000, np.uint32),
        "session_id": whole(windows["high"], windows["low"]),
        "avg_latency_ms": (2 * windows["latency_ms"] + events) // (2 * events),  # rounded half up
        "error_rate": (windows["errors"] / events).astype(np.float32),
        "abandonment_rate": (abandoned / np.maximum(opens, 1)).astype(np.float32),
        "events_count": events,
        "duration_seconds": (windows["last_ms"] - windows["first_ms"]) // 1000,
    }


def columns_of(windows_of: Mapping[int, Windows]) -> dict[str, NDArray[Any]]:
    """Return windows by hour as columns `hour`, `session_id` and the other fields of WINDOW, sorted by both."""
    hours = sorted(windows_of)
    windows = np.concatenate([np.empty(0, WINDOW), *map(windows_of.__getitem__, hours)])
    return {
        "hour": np.repeat(np.array(hours, np.int64), [len(windows_of[hour]) for hour in hours]),
        "session_id": whole(windows["high"], windows["low"]),
        **{name: windows[name].copy() for name in _BESIDES},
    }


def windows_of(columns: Mapping[str, NDArray[Any]]) -> dict[int, Windows]:
    """Return the windows by hour from the result of `columns_of`."""
    windows = np.empty(len(columns["hour"]), WINDOW)
    windows["high"], windows["low"] = halves(columns["session_id"])
    for name in _BESIDES:
        windows[name] = columns[name]
    hours, starts = np.unique(columns["hour"], return_index=True)
    parts = np.split(windows, starts[1:])
    return {hour: part.copy() for hour, part in zip(hours.tolist(), parts, strict=False)}
