"""Fold events into windows by sorting, and merge windows of earlier events with windows of later events.

A window is one session in one hour: one row of a structured array. The windows of an hour are sorted by session. The
events of a window may be folded in two parts if all events of one part come before the other part: windows add up.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Ints, Mask
from pipeline.rollup.waiting import Ids, Waiting

HOUR_MS = 3_600_000
OPEN, SUBMIT, ERROR = range(3)
"""Event types, in the order in which they count within a millisecond."""

Halves = NDArray[np.uint64]
Windows = NDArray[np.void]
"""Windows of one hour, an array of type WINDOW, sorted by session."""

WINDOW = np.dtype(
    [
        ("high", np.uint64),  # the first half of the session id, as a number
        ("low", np.uint64),
        ("latency_ms", np.int64),  # sum
        ("events", np.uint32),
        ("errors", np.uint32),
        ("opens", np.uint32),
        ("answered", np.uint32),  # opens whose next event, errors left out, is a submit
        ("first_ms", np.uint32),  # since the hour began
        ("last_ms", np.uint32),
        ("submit_first", np.bool_),  # the first event, errors left out, is a submit
        ("open_last", np.bool_),  # the last event, errors left out, is an open: the next one may answer it
    ],
    align=True,
)

_TYPE_BITS = 2
_TIME_BITS = 22 + _TYPE_BITS  # milliseconds of an hour, and the type


def halves(session_id: Ids) -> tuple[Halves, Halves]:
    """Return session ids as two arrays of numbers; the pairs sort like the bytes."""
    pairs = np.ascontiguousarray(session_id).view(">u8").reshape(-1, 2)
    return pairs[:, 0].astype(np.uint64), pairs[:, 1].astype(np.uint64)


def whole(high: Halves, low: Halves) -> Ids:
    """Return the session ids of these halves."""
    return np.stack([high, low], axis=1).astype(">u8").view("V16").reshape(-1)


def fold(events: Waiting) -> dict[int, Windows]:
    """Return the windows of the events, by hour number."""
    hours = events.ts // HOUR_MS
    if len(hours) == 0 or hours.min() == hours.max():
        return {int(hour): _fold_hour(events) for hour in hours[:1]}
    order = np.argsort(hours)
    starts = np.flatnonzero(np.diff(hours[order])) + 1
    return {int(hours[rows[0]]): _fold_hour(events.pick(rows)) for rows in np.split(order, starts)}


def merge(earlier: Windows, later: Windows) -> Windows:
    """Merge windows of one hour; in every session, the events of `later` come after the events of `earlier`."""
    both = np.concatenate([earlier, later])
    order = _order(both["high"], both["low"])
    merged = both.take(order)
    fresh = _fresh(merged["high"], merged["low"])
    again = np.flatnonzero(~fresh)
    before, after = np.sort([order[again - 1], order[again]], axis=0)  # equal sessions may be in either order
    merged[again - 1] = _add(both.take(before), both.take(after))
    return merged[fresh]


def _add(a: Windows, b: Windows) -> Windows:
    """Add windows of the same sessions; all events of `a` come before the events of `b`."""
    total = a.copy()
    for name in ("latency_ms", "events", "errors", "opens", "answered"):
        total[name] += b[name]
    total["answered"] += a["open_last"] & b["submit_first"]
    total["last_ms"] = b["last_ms"]
    total["submit_first"] = np.where(a["events"] > a["errors"], a["submit_first"], b["submit_first"])
    total["open_last"] = np.where(b["events"] > b["errors"], b["open_last"], a["open_last"])
    return total


def _fold_hour(events: Waiting) -> Windows:
    """Return the windows of the events of one hour."""
    high, low = halves(events.session_id)
    order = _order(high, low)
    high, low = high[order], low[order]
    fresh = _fresh(high, low)
    starts = np.flatnonzero(fresh)
    windows = np.zeros(len(starts), WINDOW)
    windows["high"], windows["low"] = high[starts], low[starts]
    windows["latency_ms"] = np.add.reduceat(events.latency_ms[order], starts, dtype=np.int64)
    # One number per event: index of its window, time and type. Sorting them puts each window's events in order.
    moments = (events.ts % HOUR_MS << _TYPE_BITS) | events.event_type
    keys = (np.cumsum(fresh) - 1 << _TIME_BITS) | moments[order]
    keys.sort()
    _count(windows, starts, keys)
    _pair(windows, keys[keys & 3 != ERROR])
    return windows


def _count(windows: Windows, starts: NDArray[np.intp], keys: Ints) -> None:
    """Fill in the fields that don't depend on the order of events."""
    ends = np.append(starts[1:], len(keys))
    types = keys & 3
    windows["events"] = ends - starts
    windows["errors"] = np.add.reduceat(types == ERROR, starts, dtype=np.uint32)
    windows["opens"] = np.add.reduceat(types == OPEN, starts, dtype=np.uint32)
    for name, at in ("first_ms", starts), ("last_ms", ends - 1):
        windows[name] = (keys[at] & (1 << _TIME_BITS) - 1) >> _TYPE_BITS


def _pair(windows: Windows, keys: Ints) -> None:
    """Fill in the fields that depend on the order of events; `keys` has no errors."""
    places, types = keys >> _TIME_BITS, keys & 3
    same = places[1:] == places[:-1]
    answered = same & (types[:-1] == OPEN) & (types[1:] == SUBMIT)
    windows["answered"] = np.bincount(places[1:][answered], minlength=len(windows))
    first, last = np.append(True, ~same)[: len(keys)], np.append(~same, True)[: len(keys)]
    windows["submit_first"][places[first]] = types[first] == SUBMIT
    windows["open_last"][places[last]] = types[last] == OPEN


def _order(high: Halves, low: Halves) -> NDArray[np.intp]:
    """Return the indices that sort session ids; equal ids may be in any order."""
    order = np.argsort(
        high
    )  # an unstable sort is four times as fast, and different ids with equal first halves are rare
    sorted_high, sorted_low = high[order], low[order]
    same = sorted_high[1:] == sorted_high[:-1]
    mixed = same & (sorted_low[1:] != sorted_low[:-1])
    if mixed.any():
        run = np.cumsum(np.append(True, ~same))
        tied = np.flatnonzero(np.isin(run, run[1:][mixed]))
        rows = order[tied]
        order[tied] = rows[np.lexsort((low[rows], high[rows]))]
    return order


def _fresh(high: Halves, low: Halves) -> Mask:
    """Return a mask of the rows that begin a new session, in sorted ids."""
    fresh = np.ones(len(high), np.bool_)
    fresh[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return fresh
