"""Records of a dead-letter topic as tests make them: dead letters, receipts, and an index of both."""

from collections.abc import Sequence
from typing import Any

from pipeline.dlq.headers import Headers
from pipeline.dlq.index import Index
from pipeline.dlq.letters import DlqRecord
from pipeline.dlq.receipts import Outcome, Receipt

TOPIC = "chimera.ui_events"


def error_headers(**facts: Any) -> list[tuple[str, bytes | None]]:
    """Make the worker's headers of a dead letter, with these facts in place of the usual ones."""
    usual = {
        "reason": "empty",
        "detail": "no bytes",
        "topic": TOPIC,
        "partition": 1,
        "offset": 41,
        "attempts": 1,
        "failed_at": "2026-11-24T12:00:00.000+00:00",
    }
    return [(f"chimera.error.{name}", str(fact).encode()) for name, fact in (usual | facts).items()]


def dead_record(
    headers: Headers, offset: int = 0, value: bytes | None = b"", at_ms: int = 0, partition: int = 0
) -> DlqRecord:
    """Make a record of the dead-letter topic."""
    return DlqRecord(partition, offset, at_ms, None, value, headers)


def receipt_record(
    outcome: Outcome, run: str, letters: Sequence[str], offset: int, *, at_ms: int = 0, end: int = 0
) -> DlqRecord:
    """Make the record of a receipt; the source topic has one partition, which ends at `end`."""
    written = Receipt(outcome, run, tuple(letters), {0: end})
    return dead_record(written.headers, offset, written.value, at_ms)


def index_of(*records: DlqRecord) -> Index:
    """Make an index of these records."""
    index = Index(TOPIC)
    for each in records:
        index.add(each)
    return index
