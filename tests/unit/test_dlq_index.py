"""Index of a dead-letter topic: each dead letter is counted once, and receipts decide its state."""

from datetime import UTC, datetime

import pytest
from support.dead_letters import TOPIC, dead_record, error_headers, index_of, receipt_record

from pipeline.dlq.headers import CUT_PREFIX, REQUEUED, Headers
from pipeline.dlq.index import CLAIM_SECONDS, Index, Place, Selection
from pipeline.dlq.letters import FOREIGN, OTHER, read_letter, requeued_headers
from pipeline.dlq.receipts import Outcome, Receipt, read_receipt

_MINUTE_MS = 60_000


def states(index: Index) -> dict[str, int]:
    everything = Selection(states=frozenset({"open", *Outcome}))
    return {count.state: count.letters for count in index.counts(everything)}


def test_copies_count_once() -> None:
    """Copies of a dead letter have the same coordinates and content; other dead letters differ in one of them."""
    letters = [error_headers(), error_headers(), error_headers(offset=42), error_headers(partition=2)]
    records = [dead_record(headers, offset) for offset, headers in enumerate(letters)]
    anew = dead_record(error_headers(), 9, value=b"another record of a topic that was created anew")
    (count,) = index_of(*records, anew).counts(Selection())
    assert (count.letters, count.copies) == (4, 1)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="no headers"),
        pytest.param(error_headers(topic="chimera.llm_events"), id="of another topic"),
        pytest.param(error_headers(offset="many"), id="no number"),
        pytest.param(error_headers(offset=10**30), id="no offset"),
        pytest.param(error_headers(partition="-1"), id="no partition"),
        pytest.param([("chimera.receipt", b"1")], id="a receipt of nothing"),
        pytest.param([(name, None) for name, _ in error_headers()], id="null headers"),
    ],
)
def test_a_record_that_no_worker_wrote_is_foreign(headers: Headers) -> None:
    """A foreign record has no source, and is never selected for requeueing."""
    index = index_of(dead_record(headers))
    assert [count.reason for count in index.counts(Selection())] == [FOREIGN]
    assert index.count(Selection(attempts_below=99)) == 0


def test_only_the_last_headers_count() -> None:
    """A producer can forge coordinates and receipts in headers, but the worker's headers follow them."""
    forged = [*error_headers(topic="chimera.llm_events", offset=7), *Receipt(Outcome.DROPPED, "x", ("1:41",)).headers]
    letter = read_letter(TOPIC, dead_record([*forged, *error_headers()]))
    assert (letter.source_partition, letter.source_offset) == (1, 41)
    assert read_receipt(dead_record([*forged, *error_headers()])) is None


def test_a_requeued_record_has_its_own_headers() -> None:
    """The worker's headers are removed; the number of attempts and the dead letter's id are added."""
    own = [("trace", b"1"), ("trace", None), ("b", b"\xff")]
    dead = dead_record([*own, *error_headers(attempts=1), (REQUEUED, b"1:7:ff"), *error_headers(attempts=2)])
    letter = read_letter(TOPIC, dead)
    assert requeued_headers(letter, dead.headers) == [
        *own,
        ("chimera.error.attempts", b"2"),
        (REQUEUED, letter.id.encode()),
    ]


def test_a_cut_dead_letter_is_not_requeued() -> None:
    """Without its value the record would be another one. A forged header of this kind has no effect."""
    cut = dead_record([*error_headers(), (f"{CUT_PREFIX}value", b"9000000 bytes, sha256 ...")], 0)
    forged = dead_record([(f"{CUT_PREFIX}value", b"x"), *error_headers(offset=42)], 1)
    assert [letter.offset for letter in index_of(cut, forged).page(Selection(attempts_below=9), 9)] == [1]


@pytest.mark.parametrize(
    ("selection", "offsets"),
    [
        pytest.param(Selection(), [0, 1, 2, 3], id="all"),
        pytest.param(Selection(reasons=frozenset({"empty", "too_long"})), [0, 1, 2], id="reasons"),
        pytest.param(Selection(since=datetime(2026, 11, 24, 12, tzinfo=UTC)), [1, 2, 3], id="since, inclusive"),
        pytest.param(Selection(until=datetime(2026, 11, 24, 12, tzinfo=UTC)), [0], id="until, exclusive"),
        pytest.param(Selection(places=frozenset({Place(False, 1, 40), Place(True, 0, 2)})), [0, 2], id="places"),
        pytest.param(Selection(attempts_below=3), [0, 1, 3], id="attempts"),
        pytest.param(Selection(states=frozenset({"dropped"})), [], id="state"),
    ],
)
def test_selections(selection: Selection, offsets: list[int]) -> None:
    """Each condition selects the dead letters that meet it."""
    index = index_of(
        dead_record(error_headers(offset=40, failed_at="2026-11-24T11:59:59.999+00:00"), 0),
        dead_record(error_headers(offset=41), 1),
        dead_record(error_headers(offset=42, reason="too_long", attempts=3), 2),
        dead_record(error_headers(offset=43, reason="tombstone"), 3),
    )
    assert [letter.offset for letter in index.page(selection, 10)] == offsets
    assert index.count(selection) == len(offsets)


def test_pages_follow_each_other() -> None:
    """Each page holds dead letters of one partition, and none is left out."""
    index = index_of(*(dead_record(error_headers(offset=10 * p + o), o, partition=p) for p in (0, 1) for o in range(3)))
    after, pages = (-1, -1), []
    while page := index.page(Selection(), 2, after):
        after = (page[-1].partition, page[-1].offset)
        pages.append([(letter.partition, letter.offset) for letter in page])
    assert [place for page in pages for place in page] == [(p, o) for p in (0, 1) for o in range(3)]
    assert all(len({partition for partition, _ in page}) == 1 for page in pages)


_LETTER = read_letter(TOPIC, dead_record(error_headers()))


@pytest.mark.parametrize(
    ("receipts", "state", "holder"),
    [
        pytest.param([], "open", None, id="nobody"),
        pytest.param([("claimed", "a", 0)], "claimed", "a", id="the first to claim it"),
        pytest.param([("claimed", "a", 0), ("claimed", "b", 1)], "claimed", "a", id="not the second"),
        pytest.param([("claimed", "a", 0), ("claimed", "b", 1), ("claimed", "a", 2)], "claimed", "a", id="again"),
        pytest.param(
            [("claimed", "a", 0), ("claimed", "b", CLAIM_SECONDS)], "claimed", "b", id="the second, a minute later"
        ),
        pytest.param([("claimed", "a", 0), ("requeued", "a", 1)], "requeued", None, id="requeued"),
        pytest.param(
            [("claimed", "a", 0), ("requeued", "a", 1), ("claimed", "b", 500)], "requeued", None, id="never again"
        ),
        pytest.param([("dropped", "a", 0), ("claimed", "b", 1)], "dropped", None, id="dropped"),
        pytest.param([("claimed", "a", 0), ("dropped", "b", 1)], "dropped", None, id="dropped when claimed"),
    ],
)
def test_receipts_decide_state_and_holder(receipts: list[tuple[str, str, int]], state: str, holder: str | None) -> None:
    """Receipts apply in the order of the log; each is given as outcome, run and second."""
    written = [
        receipt_record(Outcome(outcome), run, [_LETTER.id], offset, at_ms=1000 * second)
        for offset, (outcome, run, second) in enumerate(receipts, start=1)
    ]
    index = index_of(dead_record(error_headers()), *written)
    assert states(index) == {state: 1}
    if receipts:
        assert [run for run in "ab" if index.claimed([_LETTER], run)[0]] == ([holder] if holder else [])


def test_the_first_claim_says_from_where_to_search() -> None:
    """A later claim gets the ends of the first claim, however many runs have broken off since."""
    claims = [
        receipt_record(Outcome.CLAIMED, run, [_LETTER.id], at, at_ms=2 * at * _MINUTE_MS, end=at)
        for at, run in enumerate("abc")
    ]
    index = index_of(dead_record(error_headers()), *claims)
    assert index.claimed([_LETTER], "c") == ([_LETTER], {_LETTER.id: {0: 0}})
    assert index_of(dead_record(error_headers()), claims[0]).claimed([_LETTER], "a") == ([_LETTER], {})


def test_a_copy_behind_the_receipt_has_the_same_state() -> None:
    """A worker may write a copy of a dead letter late."""
    settled = receipt_record(Outcome.REQUEUED, "a", [_LETTER.id], 1)
    assert states(index_of(dead_record(error_headers()), settled, dead_record(error_headers(), 2))) == {"requeued": 1}


def test_an_unknown_reason_is_other() -> None:
    """A newer worker may have written it, or somebody may have forged it with a control sequence."""
    index = index_of(dead_record(error_headers(reason="\x1b[31mred")))
    assert [count.reason for count in index.counts(Selection())] == [OTHER]
    assert index.count(Selection(reasons=frozenset({OTHER}), attempts_below=9)) == 1


def test_the_form_of_a_receipt_in_the_topic_stays() -> None:
    """Topics hold receipts of earlier versions, which call the outcome `deed`."""
    written = b'{"deed":"claimed","run":"r","letters":["1:41"],"ends":{"0":7}}'
    receipt = Receipt(Outcome.CLAIMED, "r", ("1:41",), {0: 7})
    assert receipt.value == written
    assert read_receipt(dead_record(receipt.headers, value=written)) == receipt
