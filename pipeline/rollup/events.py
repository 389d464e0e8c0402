"""The events of a micro-batch as the windows need them, and the check that its keys are its session ids."""

from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pipeline.catalog import Family
from pipeline.columns import DictionaryColumn, Mask, Rows, Spans
from pipeline.columns.core import compiled
from pipeline.config import env_name
from pipeline.errors import ConfigError
from pipeline.rollup.fold import ERROR, OPEN, SUBMIT
from pipeline.rollup.partition import Events
from pipeline.transport.micro_batch import MicroBatch

_TEXT_BYTES, _HEX_BYTES = 36, 32  # of a UUID, with dashes and without
_EVENT_TYPES = {b"overlay_open": OPEN, b"query_submit": SUBMIT, b"error": ERROR}


def check_event_types(family: Family) -> None:
    """Check that the schema allows exactly the event types that session_stats is defined for.

    Raises:
        ConfigError: the schema allows other event types.
    """
    field = family.schema.by_name.get("event_type")
    declared = {value.encode() for value in (field and field.values) or ()}
    if declared != _EVENT_TYPES.keys():
        expected = ", ".join(value.decode() for value in _EVENT_TYPES)
        raise ConfigError(
            f"{family.schema.file}: event_type: expected the values {expected}, for which session_stats is defined; "
            f"define it for other values (docs/session_stats.md), or set {env_name('rollup', 'enabled')}=false"
        )


def events_of(batch: MicroBatch, rows: Rows) -> Events:
    """Return the valid events of a micro-batch, in log order."""
    columns, types = rows.columns, rows.columns["event_type"]
    assert isinstance(types, DictionaryColumn)
    code_of = np.array([_EVENT_TYPES[value] for value in types.values], np.uint8)
    return Events(
        session_id=np.asarray(columns["session_id"]),
        ts=np.asarray(columns["ts"]),
        event_type=code_of[types.codes],
        latency_ms=np.asarray(columns["latency_ms"]),
        appended_at=batch.timestamps[rows.positions],
    )


def part_of(events: Events, batch: MicroBatch, rows: Rows, first: int, end: int) -> Events:
    """Return the events whose records have offsets from `first` up to, but not including, `end`."""
    if first <= batch.first and batch.last < end:
        return events
    start, stop = np.searchsorted(rows.positions, np.searchsorted(batch.offsets, [first, end]))
    return Events._make(column[start:stop] for column in events)


def foreign_keys(batch: MicroBatch, rows: Rows) -> list[int]:
    """Return the offsets of records whose key isn't their session id, neither as text nor as its 16 bytes."""
    keys, ids = batch.keys, np.asarray(rows.columns["session_id"])
    keys = keys if len(rows) == len(keys) else keys[rows.positions]
    others = np.flatnonzero(_unusual(keys, ids))
    named = (_names(key, session) for key, session in zip(keys[others].values(), ids[others].tolist(), strict=True))
    foreign = others[~np.fromiter(named, np.bool_, len(others))]
    offsets: list[int] = batch.offsets[rows.positions[foreign]].tolist()
    return offsets


def _unusual(keys: Spans, ids: NDArray[Any]) -> Mask:
    """Return true for each key that may be another than its id in the usual form."""
    if (core := compiled()) is not None:
        return core.other_uuids(keys, ids)
    sizes = (keys.lengths == _TEXT_BYTES) | (keys.lengths == _HEX_BYTES)
    usual = sizes.all() and keys.joined().translate(None, b"-") == ids.tobytes().hex().encode()  # all in one comparison
    return np.full(len(keys), not usual)


def _names(key: bytes, session: bytes) -> bool:
    if key == session:
        return True
    try:
        return UUID(key.decode()).bytes == session
    except ValueError:  # covers UnicodeDecodeError
        return False
