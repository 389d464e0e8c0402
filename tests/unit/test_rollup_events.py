"""The check that the keys of records are the sessions of their events."""

from types import SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from support.records import Record, parts_of

from pipeline.columns import Rows
from pipeline.rollup.events import foreign_keys

_SESSIONS = [UUID(int=number, version=4) for number in (1, 0xABCDEF << 100, 2**128 - 1)]
_TEXTS = [str(session).encode() for session in _SESSIONS]


def _batch(keys: list[bytes | None], positions: list[int], sessions: list[UUID]) -> tuple[Any, Rows]:
    (records,) = parts_of(Record(70 + row, key=key) for row, key in enumerate(keys))
    batch = SimpleNamespace(keys=records.keys, offsets=records.offsets)
    ids = np.frombuffer(b"".join(session.bytes for session in sessions), "V16")
    return batch, Rows({"session_id": ids}, np.array(positions), ())


@pytest.mark.parametrize(
    "keys",
    [_TEXTS, [text.upper() for text in _TEXTS], [session.bytes for session in _SESSIONS]],
    ids=["text", "capitals", "bytes"],
)
def test_a_session_id_is_a_valid_key(keys: list[bytes | None]) -> None:
    """A producer may write it in any form."""
    assert foreign_keys(*_batch(keys, [0, 1, 2], _SESSIONS)) == []


@pytest.mark.parametrize("key", [None, b"", b"user-7", _TEXTS[0], _TEXTS[1][:-1] + b"f", _TEXTS[1] + b"0"])
def test_any_other_key_is_foreign(key: bytes | None) -> None:
    """Another session's id is foreign too; the result is the record's offset."""
    assert foreign_keys(*_batch([_TEXTS[0], key, _TEXTS[2]], [0, 1, 2], _SESSIONS)) == [71]


def test_keys_of_rejected_records_do_not_count() -> None:
    """Rejected records have no session."""
    assert foreign_keys(*_batch([b"?", _TEXTS[1], None], [1], _SESSIONS[1:2])) == []
    assert foreign_keys(*_batch([_TEXTS[1], b"?", None], [1], _SESSIONS[1:2])) == [71]
