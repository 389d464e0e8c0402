"""From the rows of a micro-batch to what the windows need of them, and whether its keys are its sessions."""

from bisect import bisect_left
from operator import attrgetter
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pipeline.batches import MicroBatch
from pipeline.columns import Coded, Rows
from pipeline.rollup.fold import ERROR, OPEN, SUBMIT
from pipeline.rollup.partition import Events

_EVENT_TYPES = {b"overlay_open": OPEN, b"query_submit": SUBMIT, b"error": ERROR}
_TWO_DIGITS = np.array([b"%02x" % byte for byte in range(256)], "S2").view(np.uint16)
# The text of a UUID is 36 characters: where each group of digits begins and ends, and which of the 32 is its first.
_GROUPS = ((0, 8, 0), (9, 13, 8), (14, 18, 12), (19, 23, 16), (24, 36, 20))


def events_of(batch: MicroBatch, rows: Rows) -> Events:
    """The valid events of a micro-batch, in the order of the log."""
    columns, types = rows.columns, rows.columns["event_type"]
    assert isinstance(types, Coded)
    code_of = np.array([_EVENT_TYPES[value] for value in types.values], np.uint8)
    return Events(
        session_id=np.asarray(columns["session_id"]),
        ts=np.asarray(columns["ts"]),
        event_type=code_of[types.codes],
        latency_ms=np.asarray(columns["latency_ms"]),
        appended_at=np.array(batch.timestamps, np.int64)[rows.positions],
    )


def part_of(events: Events, batch: MicroBatch, rows: Rows, first: int, end: int) -> Events:
    """Those of the events whose records have offsets from `first` to before `end`."""
    if first <= batch.first and batch.last < end:
        return events
    records = [bisect_left(batch.records, offset, key=attrgetter("offset")) for offset in (first, end)]
    start, stop = np.searchsorted(rows.positions, records)
    return Events._make(column[start:stop] for column in events)


def foreign_keys(batch: MicroBatch, rows: Rows) -> list[int]:
    """Offsets of the records whose key isn't the session of their event: neither its text nor its 16 bytes."""
    records = [batch.records[position] for position in rows.positions.tolist()]
    ids = np.asarray(rows.columns["session_id"])
    joined = b"".join([record.key or b"" for record in records])
    if joined == _texts(ids).tobytes():  # so it is as good as always
        return []
    sessions = ids.tolist()
    return [
        record.offset
        for record, session in zip(records, sessions, strict=True)
        if not _names(record.key or b"", session)
    ]


def _texts(ids: NDArray[np.void]) -> NDArray[np.uint8]:
    """UUIDs as text: n rows of 36 characters."""
    digits = _TWO_DIGITS[ids.view(np.uint8)].view(np.uint8).reshape(len(ids), 32)
    texts = np.full((len(ids), 36), ord("-"), np.uint8)
    for begin, end, digit in _GROUPS:
        texts[:, begin:end] = digits[:, digit : digit + end - begin]
    return texts


def _names(key: bytes, session: bytes) -> bool:
    if key == session:
        return True
    try:
        return UUID(key.decode()).bytes == session
    except ValueError:  # that of decode is one
        return False
