"""Receipts: records of a dead-letter topic that say what has become of dead letters before them.

A receipt is told from a dead letter by its last header. Nobody can forge one by what he publishes: the last headers of
a dead letter are the worker's. Receipts outlive what they are about, because retention deletes from the front.
"""

import enum
from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from pipeline.dlq.letters import Record

_HEADER = "chimera.receipt"


class Deed(enum.StrEnum):
    """What was done."""

    CLAIMED = "claimed"  # a run is about to requeue them
    REQUEUED = "requeued"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a run of `chimera dlq` did to some dead letters."""

    deed: Deed
    run: str
    """Tells runs from each other."""
    letters: tuple[str, ...]
    """Their ids."""
    ends: dict[int, int] = field(default_factory=dict)
    """Of a claim: the end of each partition of the source topic, before anything was requeued."""

    @property
    def value(self) -> bytes:
        """Of the record that it is written as."""
        return _RECEIPT.dump_json(self)

    @property
    def headers(self) -> list[tuple[str, bytes | None]]:
        """Of that record."""
        return [(_HEADER, b"1")]


_RECEIPT = TypeAdapter(Receipt)


def read_receipt(record: Record) -> Receipt | None:
    """The receipt that a record is; None when it is a dead letter, or nothing we know."""
    if not record.headers or record.headers[-1][0] != _HEADER:
        return None
    try:
        return _RECEIPT.validate_json(record.value or b"")
    except ValidationError:
        return None
