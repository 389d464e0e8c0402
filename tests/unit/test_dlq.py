"""What `chimera dlq` makes of the records of a dead-letter topic, without a broker."""

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from support.events import events

from pipeline.catalog import Family, load_catalog
from pipeline.config import Settings
from pipeline.decode.reference import Reference
from pipeline.dlq.content import Reader
from pipeline.dlq.headers import CUT_PREFIX, REQUEUED, Headers
from pipeline.dlq.index import CLAIM_SECONDS, Index, Place, Selection
from pipeline.dlq.letters import FOREIGN, OTHER, DlqRecord, read_letter, requeued_headers
from pipeline.dlq.receipts import Outcome, Receipt, read_receipt
from pipeline.dlq.show import described, lines
from pipeline.producer.encode import Encoder
from pipeline.schema.framing import SINGLE_OBJECT_HEADER_BYTES, frame_confluent, frame_single_object

_TOPIC = "chimera.ui_events"
_MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def family() -> Family:
    return load_catalog(Settings()).family("ui_events")


@pytest.fixture(scope="module")
def valid(family: Family) -> bytes:
    return Encoder(family).encode(events(family.name, 1)[0]).value


def error(**facts: Any) -> list[tuple[str, bytes | None]]:
    """The worker's headers, but for these facts as usual."""
    usual = {
        "reason": "empty",
        "detail": "no bytes",
        "topic": _TOPIC,
        "partition": 1,
        "offset": 41,
        "attempts": 1,
        "failed_at": "2026-11-24T12:00:00.000+00:00",
    }
    return [(f"chimera.error.{name}", str(fact).encode()) for name, fact in (usual | facts).items()]


def record(
    headers: Headers, offset: int = 0, value: bytes | None = b"", at_ms: int = 0, partition: int = 0
) -> DlqRecord:
    return DlqRecord(partition, offset, at_ms, None, value, headers)


def receipt(
    outcome: Outcome, run: str, letters: Sequence[str], offset: int, *, at_ms: int = 0, end: int = 0
) -> DlqRecord:
    """As it lies in the topic."""
    written = Receipt(outcome, run, tuple(letters), {0: end})
    return record(written.headers, offset, written.value, at_ms)


def index_of(*records: DlqRecord) -> Index:
    index = Index(_TOPIC)
    for each in records:
        index.add(each)
    return index


def states(index: Index) -> dict[str, int]:
    everything = Selection(states=frozenset({"open", *Outcome}))
    return {count.state: count.letters for count in index.counts(everything)}


def test_copies_count_once() -> None:
    """A dead letter that was written twice has the same coordinates and content; others differ in either."""
    letters = [error(), error(), error(offset=42), error(partition=2)]
    records = [record(headers, offset) for offset, headers in enumerate(letters)]
    anew = record(error(), 9, value=b"another record of a topic that was created anew")
    (count,) = index_of(*records, anew).counts(Selection())
    assert (count.letters, count.copies) == (4, 1)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="no headers"),
        pytest.param(error(topic="chimera.llm_events"), id="of another topic"),
        pytest.param(error(offset="many"), id="no number"),
        pytest.param(error(offset=10**30), id="no offset"),
        pytest.param(error(partition="-1"), id="no partition"),
        pytest.param([("chimera.receipt", b"1")], id="a receipt of nothing"),
        pytest.param([(name, None) for name, _ in error()], id="null headers"),
    ],
)
def test_what_no_worker_wrote_is_foreign(headers: Headers) -> None:
    """It has no place to go back to, and is selected for no requeueing."""
    index = index_of(record(headers))
    assert [count.reason for count in index.counts(Selection())] == [FOREIGN]
    assert index.count(Selection(attempts_below=99)) == 0


def test_the_headers_that_count_are_the_last_ones() -> None:
    """A record can come with headers that say where it wants to go, and with a receipt's: the worker's come after."""
    forged = [*error(topic="chimera.llm_events", offset=7), *Receipt(Outcome.DROPPED, "x", ("1:41",)).headers]
    letter = read_letter(_TOPIC, record([*forged, *error()]))
    assert (letter.source_partition, letter.source_offset) == (1, 41)
    assert read_receipt(record([*forged, *error()])) is None


def test_a_record_goes_back_with_its_own_headers() -> None:
    """Ours are gone but for the attempts, from which the next worker counts on, and for the mark of this requeueing."""
    own = [("trace", b"1"), ("trace", None), ("b", b"\xff")]
    dead = record([*own, *error(attempts=1), (REQUEUED, b"1:7:ff"), *error(attempts=2)])
    letter = read_letter(_TOPIC, dead)
    assert requeued_headers(letter, dead.headers) == [
        *own,
        ("chimera.error.attempts", b"2"),
        (REQUEUED, letter.id.encode()),
    ]


def test_what_was_cut_is_not_requeued() -> None:
    """A record that was too large: sent back without its value it would be another one. Forging this is no use."""
    cut = record([*error(), (f"{CUT_PREFIX}value", b"9000000 bytes, sha256 ...")], 0)
    forged = record([(f"{CUT_PREFIX}value", b"x"), *error(offset=42)], 1)
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
    """Every condition narrows."""
    index = index_of(
        record(error(offset=40, failed_at="2026-11-24T11:59:59.999+00:00"), 0),
        record(error(offset=41), 1),
        record(error(offset=42, reason="too_long", attempts=3), 2),
        record(error(offset=43, reason="tombstone"), 3),
    )
    assert [letter.offset for letter in index.page(selection, 10)] == offsets
    assert index.count(selection) == len(offsets)


def test_pages_follow_each_other() -> None:
    """Each holds letters of one partition, and none is left out."""
    index = index_of(*(record(error(offset=10 * p + o), o, partition=p) for p in (0, 1) for o in range(3)))
    after, pages = (-1, -1), []
    while page := index.page(Selection(), 2, after):
        after = (page[-1].partition, page[-1].offset)
        pages.append([(letter.partition, letter.offset) for letter in page])
    assert [place for page in pages for place in page] == [(p, o) for p in (0, 1) for o in range(3)]
    assert all(len({partition for partition, _ in page}) == 1 for page in pages)


_LETTER = read_letter(_TOPIC, record(error()))


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
def test_who_has_a_dead_letter(receipts: list[tuple[str, str, int]], state: str, holder: str | None) -> None:
    """The log decides: (outcome, run, second) after (outcome, run, second)."""
    written = [
        receipt(Outcome(outcome), run, [_LETTER.id], offset, at_ms=1000 * second)
        for offset, (outcome, run, second) in enumerate(receipts, start=1)
    ]
    index = index_of(record(error()), *written)
    assert states(index) == {state: 1}
    if receipts:
        assert [run for run in "ab" if index.claimed([_LETTER], run)[0]] == ([holder] if holder else [])


def test_what_was_claimed_before_is_doubtful_from_where_the_source_then_ended() -> None:
    """By the first claim, however many runs have broken off since."""
    claims = [
        receipt(Outcome.CLAIMED, run, [_LETTER.id], at, at_ms=2 * at * _MINUTE_MS, end=at)
        for at, run in enumerate("abc")
    ]
    index = index_of(record(error()), *claims)
    assert index.claimed([_LETTER], "c") == ([_LETTER], {_LETTER.id: {0: 0}})
    assert index_of(record(error()), claims[0]).claimed([_LETTER], "a") == ([_LETTER], {})


def test_a_copy_that_comes_after_the_receipt_is_settled_too() -> None:
    """The worker that wrote the dead letter may repeat it late."""
    settled = receipt(Outcome.REQUEUED, "a", [_LETTER.id], 1)
    assert states(index_of(record(error()), settled, record(error(), 2))) == {"requeued": 1}


def test_all_of_a_valid_value_is_read(family: Family, valid: bytes) -> None:
    """With its fields in their order, and no reason to end."""
    content = Reader(family).read(valid)
    assert list(content.fields) == [field.name for field in family.schema.fields]
    assert content.ends == ""


def test_a_damaged_value_is_read_up_to_the_damage(family: Family, valid: bytes) -> None:
    """Cut off at every byte: as many fields as are whole, each as it was."""
    whole = Reader(family).read(valid).fields
    seen = set()
    for size in range(SINGLE_OBJECT_HEADER_BYTES, len(valid)):
        content = Reader(family).read(valid[:size])
        assert list(content.fields.items()) == list(whole.items())[: len(content.fields)]
        assert content.ends
        seen.add(len(content.fields))
    assert seen == set(range(len(whole)))


@pytest.mark.parametrize(
    ("value", "ends"),
    [
        pytest.param(None, "null", id="null"),
        pytest.param(b"", "no bytes", id="empty"),
        pytest.param(b"{}", "no frame that names a schema", id="unframed"),
        pytest.param(frame_confluent(7, b""), "id:7: no registry is set to ask", id="no registry"),
        pytest.param(frame_single_object(bytes(8), b"x"), "no version of the family's schema", id="fingerprint"),
    ],
)
def test_why_nothing_can_be_read(family: Family, value: bytes | None, ends: str) -> None:
    """It is said, not raised."""
    content = Reader(family).read(value)
    assert not content.fields
    assert ends in content.ends


class _Registry:
    def __init__(self, schema: Any) -> None:
        self._schema = schema

    def schema(self, _: int) -> Any:
        return self._schema


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"type": "array", "items": "null"}, id="array of null"),
        pytest.param({"type": "record", "name": "R", "fields": [{"name": "f", "type": ["null", "R"]}]}, id="recursive"),
        pytest.param("string", id="no record"),
        pytest.param(None, id="nothing"),
    ],
)
def test_a_hostile_schema_reads_nothing(family: Family, schema: Any) -> None:
    """Who may register schemas can't hold up who looks."""
    content = Reader(family, _Registry(schema)).read(frame_confluent(1, b"\xff" * 100))
    assert not content.fields
    assert content.ends


def test_the_schema_need_not_be_the_familys(family: Family) -> None:
    """What its writer meant can be seen, nested types and text that isn't UTF-8 too."""
    schema = {
        "type": "record",
        "name": "Other",
        "fields": [
            {"name": "who", "type": {"type": "record", "name": "Who", "fields": [{"name": "id", "type": "string"}]}},
            {"name": "tags", "type": {"type": "map", "values": ["null", "Who"]}},
        ],
    }
    content = Reader(family, _Registry(schema)).read(frame_confluent(1, b"\x02\xff" + b"\x02\x02k\x02\x02x\x00" + b"!"))
    assert content.fields == {"who": {"id": "\\xff"}, "tags": {"k": {"id": "x"}}}
    assert content.ends == "bytes after the last field"


def test_nothing_that_a_value_holds_makes_reading_fail(family: Family, valid: bytes) -> None:
    """Bytes at random, in place of any part of a valid value, masked and not."""
    chance = random.Random(1)
    reader = Reader(family)
    for _ in range(2_000):
        value = bytearray(valid)
        start = chance.randrange(SINGLE_OBJECT_HEADER_BYTES, len(value))
        value[start : start + chance.randrange(12)] = chance.randbytes(chance.randrange(12))
        dead = record(error(), value=bytes(value))
        for unmask in (False, True):
            said = described(family, read_letter(_TOPIC, dead), dead, reader.read(dead.value), unmask=unmask)
            assert json.loads(json.dumps(said, allow_nan=False)) == said
            assert "\n".join(lines(said)).replace("\n", "").isprintable()


_SECRETS = ("jo.public@example.org", "\x1b[31mred", "trace-4711")


def _secret(family: Family) -> DlqRecord:
    event = {**events(family.name, 1)[0], "user_agent": _SECRETS[1]}
    value = Encoder(family).encode(event).value
    headers = [("trace", _SECRETS[2].encode()), *error(reason="too_long", detail="user_agent: over 512 bytes")]
    return DlqRecord(0, 0, 0, _SECRETS[0].encode(), value, headers)


def test_what_is_shown_is_masked(family: Family) -> None:
    """Types and lengths, the field that is to blame, and no value: not a key, not a header, not an id."""
    dead = _secret(family)
    content = Reader(family).read(dead.value)
    said = described(family, read_letter(_TOPIC, dead), dead, content, unmask=False)
    text = "\n".join(lines(said)) + json.dumps(said)
    assert 'user_agent         "text, 8 bytes"   <- user_agent: over 512 bytes' in text
    assert said["key"] == "21 bytes"
    assert said["fields"]["ts"] == "number"
    assert said["headers"] == [["text, 5 bytes", "10 bytes"]]
    for secret in (*_SECRETS, *(str(value) for value in content.fields.values() if len(str(value)) > 6)):
        assert secret not in text


_FORGED: list[tuple[str, bytes | None]] = [
    ("chimera.error.reason", b"jo@example.org"),
    ("chimera.error.detail", b"bob@example.org"),
    ("chimera.error.schema", b"+4915123456789"),
    ("chimera.error.version", b"203.0.113.9"),
    ("chimera.error.cut.value", b"eve@example.org"),
    ("chimera.error.jo@example.org", b"x"),
]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([*_FORGED, *error()], id="before the worker's"),
        pytest.param(_FORGED, id="of no record of the topic"),
        pytest.param([*error(), ("jo@example.org", b"x")], id="something behind the worker's"),
        pytest.param([*error(topic="jo@example.org"), *_FORGED[1:]], id="of another topic"),
    ],
)
def test_facts_that_no_worker_wrote_are_not_shown(family: Family, headers: Headers) -> None:
    """Anybody can write headers with such names and personal data in them; they count for nothing either."""
    dead = record(headers)
    letter = read_letter(_TOPIC, dead)
    said = described(family, letter, dead, Reader(family).read(dead.value), unmask=False)
    text = "\n".join(lines(said)) + json.dumps(said)
    for secret in ("example", "49151", "203.0.113", "too large"):
        assert secret not in text
    assert said["left_out"] == {}
    assert letter.whole or letter.foreign
    assert {letter.reason, said["reason"]} <= {"empty", FOREIGN}


def test_a_reason_that_is_unknown_here_is_other() -> None:
    """A newer worker may know it; and whoever writes to the topic may have made it up, for a terminal to obey."""
    index = index_of(record(error(reason="\x1b[31mred")))
    assert [count.reason for count in index.counts(Selection())] == [OTHER]
    assert index.count(Selection(reasons=frozenset({OTHER}), attempts_below=9)) == 1


def test_the_time_that_the_record_had_is_shown(family: Family) -> None:
    """The dead letter's own is that of its rejection; a number that is no time, and none, do no harm."""
    for facts, shown in (
        ({"timestamp": 1_700_000_000_000}, "2023-11-14T22:13:20.000Z"),
        ({"timestamp": 9 * 10**17}, "1970-01-01T00:00:00.000Z"),
        ({}, None),
    ):
        dead = record(error(**facts))
        said = described(family, read_letter(_TOPIC, dead), dead, Reader(family).read(b""), unmask=False)
        assert said["timestamp"] == shown
        assert f"  record     of {shown or 'an unknown time'}" in lines(said)


def test_unmasked_it_is_as_people_write_it_and_no_terminal_obeys(family: Family) -> None:
    """Times and ids as text; control characters are escaped."""
    dead = _secret(family)
    said = described(family, read_letter(_TOPIC, dead), dead, Reader(family).read(dead.value), unmask=True)
    assert said["key"] == _SECRETS[0]
    assert said["fields"]["user_agent"] == _SECRETS[1]
    assert datetime.fromisoformat(said["fields"]["ts"]).tzinfo == UTC
    assert "\x1b" not in "\n".join(lines(said))


def test_money_is_a_decimal_number() -> None:
    """As the schema says, not as its bytes lie."""
    family = load_catalog(Settings()).family("bench_runs")
    event = events(family.name, 1)[0]
    money = next(field.name for field in family.schema.fields if field.logical_type == "decimal")
    dead = record(error(), value=Encoder(family).encode({**event, money: "1.25"}).value)
    content = Reader(family).read(dead.value)
    said = described(family, read_letter(_TOPIC, dead), dead, content, unmask=True)
    assert said["fields"][money] == "1.250000"


def test_reading_partly_reads_what_reading_reads(family: Family, valid: bytes) -> None:
    """Of a whole record."""
    reference = Reference(family.schema.raw, {field.name: field.type for field in family.schema.fields})
    body = valid[SINGLE_OBJECT_HEADER_BYTES:]
    assert reference.read_partly(body) == (reference.read(body), None)
