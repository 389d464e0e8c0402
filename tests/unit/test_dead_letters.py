"""Headers of a dead letter: place and reason of the rejection, and nothing of the record's content."""

from datetime import UTC, datetime, timedelta

import pytest
from support.records import Record, parts_of

from pipeline.catalog import BatchPolicy, load_catalog
from pipeline.columns import Rejection
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.dlq.headers import attempts_of
from pipeline.dlq.writer import DeadLetters, dead_letter
from pipeline.errors import Reason
from pipeline.transport.micro_batch import MicroBatch, State
from pipeline.transport.partition import PartitionBatches

_SECRET = b"jo.public@example.org"
_FINGERPRINT = bytes(range(8))


_OFFSET = 41


def batch_of(record: Record) -> MicroBatch:
    policy = BatchPolicy(max_rows=1, max_bytes=1024, linger_seconds=1)
    partition = PartitionBatches("t", "id", 3, State(record.offset, ()), policy=policy, limit=1)
    partition.add(parts_of([record]), 0)
    (batch,) = partition.cut(0)
    return batch


def said(record: Record, rejection: Rejection) -> dict[str, str]:
    """Return the added headers, by their names without the prefix."""
    headers = dead_letter(batch_of(record), rejection, record).headers
    assert headers[: len(record.headers)] == list(record.headers)
    own = headers[len(record.headers) :]
    return {name.removeprefix("chimera.error."): value.decode() for name, value in own if isinstance(value, bytes)}


def test_the_headers() -> None:
    """The headers name the place of the record, the reason, the worker's version and the time."""
    facts = said(
        Record(_OFFSET, b"\xc3\x01" + _FINGERPRINT, timestamp=1_700_000_000_000),
        Rejection(0, Reason.TOO_LONG, "user_agent: over 512 bytes"),
    )
    failed_at = datetime.fromisoformat(facts.pop("failed_at"))
    assert timedelta(0) <= datetime.now(UTC) - failed_at < timedelta(minutes=1)
    assert facts.pop("version")
    assert facts == {
        "reason": "too_long",
        "detail": "user_agent: over 512 bytes",
        "topic": "t",
        "partition": "3",
        "offset": "41",
        "timestamp": "1700000000000",
        "schema": f"fingerprint:{_FINGERPRINT.hex()}",
        "attempts": "1",
    }


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        pytest.param(b"\xc3\x01" + _FINGERPRINT + _SECRET, "fingerprint:0001020304050607", id="single-object"),
        pytest.param(b"\x00\x00\x00\x01\x02" + _SECRET, "id:258", id="Confluent"),
        pytest.param(_SECRET, "", id="unframed"),
        pytest.param(b"", "", id="empty"),
        pytest.param(None, "", id="null"),
    ],
)
def test_the_schema_comes_from_the_frame(value: bytes | None, schema: str) -> None:
    """Nothing else of the value appears in the headers."""
    facts = said(Record(_OFFSET, value), Rejection(0, Reason.MALFORMED, ""))
    assert facts["schema"] == schema
    assert _SECRET.decode() not in "".join(facts.values())


@pytest.mark.parametrize(
    ("before", "attempts"),
    [
        pytest.param([], 0, id="never"),
        pytest.param([("chimera.error.attempts", b"1")], 1, id="once"),
        pytest.param([("chimera.error.attempts", b"1"), ("chimera.error.attempts", b"2")], 2, id="twice"),
        pytest.param([("chimera.error.attempts", b"2"), ("chimera.error.attempts", b"many")], 2, id="no number"),
        pytest.param([("chimera.error.attempts", None)], 0, id="null"),
        pytest.param([("attempts", b"9")], 0, id="somebody else's"),
        pytest.param([("chimera.error.attempts", b"9" * 5000)], 0, id="more than a number is"),
    ],
)
def test_attempts_are_counted_over_requeueing(before: list[tuple[str, bytes | None]], attempts: int) -> None:
    """The count goes on from the headers of the record's earlier dead letters."""
    assert attempts_of(before) == attempts
    assert said(Record(_OFFSET, b"", headers=tuple(before)), Rejection(0, Reason.EMPTY, ""))["attempts"] == str(
        attempts + 1
    )


def test_no_detail_repeats_a_value() -> None:
    """The detail names field and bound, but no value, whatever is wrong with a record."""
    family = load_catalog(Settings()).family("ui_events")
    frame = b"\xc3\x01" + family.schema.fingerprint
    values = [frame + _SECRET * times for times in range(1, 40)] + [_SECRET, frame, b"", None]
    rows = Decoder(family).decode(values)
    assert len(rows.rejections) == len(values)
    for rejection in rows.rejections:
        assert "jo" not in rejection.detail
        assert "example" not in rejection.detail


def test_nothing_is_connected_before_there_is_a_dead_letter() -> None:
    """A worker without rejected records has no producer and no thread for them."""
    letters = DeadLetters(Settings().kafka, load_catalog(Settings()).families)
    assert letters._connected is None
    assert not letters.pool._threads
