"""A verdict that changes between two attempts at a micro-batch: each record stays a row or a dead letter, once."""

from collections.abc import Sequence

import numpy as np
import pytest
from support.ingesting import END_MS, ROWS, batch_of, dead_letters, ingest, values
from support.processes import prepare

from pipeline.catalog import Family
from pipeline.clickhouse.client import connect
from pipeline.config import Settings, ValidationSettings
from pipeline.decode.decoder import Decoder

pytestmark = pytest.mark.integration

_STRICT, _LAX = ValidationSettings(max_behind_seconds=36 * 3600), ValidationSettings()


@pytest.fixture
def family(settings: Settings) -> Family:
    return prepare(settings).family("ui_events")


def _stored(settings: Settings) -> list[int]:
    with connect(settings.clickhouse) as client:
        return sorted(offset for (offset,) in client.execute("SELECT _offset FROM ui_events"))


def _late(family: Family, records: Sequence[bytes]) -> list[int]:
    """Offsets of the events that the strict setting rejects: half of them, and half of one day."""
    times = np.asarray(Decoder(family).decode(records).columns["ts"])
    late = np.flatnonzero(times < END_MS - 36 * 3600 * 1000)
    assert 0 < len(late) < ROWS
    return list(late.tolist())


def test_a_stored_row_does_not_become_a_dead_letter(settings: Settings, family: Family) -> None:
    """A setting that became stricter rejects only what wasn't stored before."""
    records = values(family)
    late = _late(family, records)
    ingest(settings, family, batch_of(family, records), _LAX)
    for _ in range(2):
        ingest(settings, family, batch_of(family, records, again=True), _STRICT)
        assert _stored(settings) == list(range(ROWS))
    assert dead_letters(settings, family) == {}
    with connect(settings.clickhouse) as client:
        client.execute(f"DELETE FROM ui_events WHERE _offset = {late[0]}")
    ingest(settings, family, batch_of(family, records, again=True), _STRICT)
    assert dead_letters(settings, family) == {late[0]: "out_of_bounds"}
    assert _stored(settings) == [offset for offset in range(ROWS) if offset != late[0]]


def test_a_dead_letter_does_not_become_a_row(settings: Settings, family: Family) -> None:
    """A setting that became laxer accepts none of the records that were rejected before; `chimera dlq requeue` does."""
    records = values(family)
    late = _late(family, records)
    ingest(settings, family, batch_of(family, records), _STRICT)
    expected = dict.fromkeys(late, "out_of_bounds")
    assert dead_letters(settings, family) == expected
    for _ in range(2):
        ingest(settings, family, batch_of(family, records, again=True), _LAX)
        assert _stored(settings) == sorted(set(range(ROWS)) - expected.keys())
    assert dead_letters(settings, family) == expected


def test_a_dead_letter_of_an_earlier_topic_keeps_no_record_out(settings: Settings, family: Family) -> None:
    """A topic that was created anew has other records at the same offsets."""
    old, records = values(family, seed=2), values(family)
    late = _late(family, old)
    ingest(settings, family, batch_of(family, old), _STRICT)
    with connect(settings.clickhouse) as client:
        client.execute("TRUNCATE TABLE ui_events")
        ingest(settings, family, batch_of(family, records))
        client.execute(f"DELETE FROM ui_events WHERE _offset IN {tuple(late)}")
    ingest(settings, family, batch_of(family, records, again=True))
    assert _stored(settings) == list(range(ROWS))


def test_a_refused_row_that_is_stored_stays(settings: Settings, family: Family) -> None:
    """A constraint that somebody adds between two attempts makes dead letters of missing rows alone."""
    records = values(family)
    ingest(settings, family, batch_of(family, records))
    with connect(settings.clickhouse) as client:
        client.execute("DELETE FROM ui_events WHERE _offset < 100")
        client.execute("ALTER TABLE ui_events ADD CONSTRAINT none CHECK latency_ms > 4000000000")
    ingest(settings, family, batch_of(family, records, again=True))
    assert sorted(dead_letters(settings, family)) == list(range(100))
    assert _stored(settings) == list(range(100, ROWS))
