"""The running count of unsettled dead letters agrees with the index of the whole topic."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dlq.headers import HEADER_PREFIX
from pipeline.dlq.index import Index, Selection
from pipeline.dlq.letters import DlqRecord, read_letter
from pipeline.dlq.receipts import Outcome, Receipt
from pipeline.dlq.unsettled import Unsettled

_SOURCE = "chimera.ui_events"


def _letter(offset: int, record: int) -> DlqRecord:
    facts = {
        "reason": ("truncated", "malformed")[record % 2],
        "topic": _SOURCE,
        "partition": "0",
        "offset": str(record),
    }
    headers = [(f"{HEADER_PREFIX}{name}", value.encode()) for name, value in facts.items()]
    return DlqRecord(0, offset, 1_700_000_000_000 + offset, b"key", b"%d" % record, headers)


def _log(steps: Sequence[tuple[str, int]]) -> list[DlqRecord]:
    """Return a log in which each step is a dead letter of a record, or a receipt for it."""
    log = []
    for offset, (what, record) in enumerate(steps):
        letter = _letter(offset, record)
        if what != "letter":
            receipt = Receipt(Outcome(what), "run", (read_letter(_SOURCE, letter).id,), {0: 9})
            letter = DlqRecord(0, offset, letter.timestamp, None, receipt.value, receipt.headers)
        log.append(letter)
    return log


_STEPS = st.lists(st.tuples(st.sampled_from(["letter", "letter", *Outcome]), st.integers(0, 4)), max_size=40)


@given(_STEPS)
def test_it_counts_as_the_index_does(steps: list[tuple[str, int]]) -> None:
    """Copies, claims, receipts before and after their dead letter: both have the same numbers by reason."""
    index, unsettled = Index(_SOURCE), Unsettled(_SOURCE)
    for record in _log(steps):
        index.add(record)
        unsettled.add(record)
    wanted: dict[str, int] = {}
    for count in index.counts(Selection()):
        wanted[count.reason] = wanted.get(count.reason, 0) + count.letters
    assert unsettled.counts() == wanted
    assert (unsettled.oldest() is None) == (not wanted)


@pytest.mark.parametrize("failed_at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "soon", "2026-01-31"])
def test_a_time_that_is_none_is_the_record_s(failed_at: str) -> None:
    """Anybody who may write to the topic writes the header: one record must not end the monitor and the commands."""
    letter = _letter(0, 0)
    letter = letter._replace(headers=[*letter.headers, (f"{HEADER_PREFIX}failed_at", failed_at.encode())])
    assert read_letter(_SOURCE, letter).failed_at.timestamp() == letter.timestamp / 1000


def test_dead_letters_that_retention_deleted_no_longer_wait() -> None:
    """They leave the count, and are told, as nobody can settle them any more."""
    unsettled = Unsettled(_SOURCE)
    for record in _log([("letter", number) for number in range(4)]):
        unsettled.add(record)
    assert unsettled.forget({0: 3, 1: 7}) == 3
    assert unsettled.counts() == {"malformed": 1}
    assert unsettled.forget({0: 3}) == 0
