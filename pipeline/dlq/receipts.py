"""Receipts: records of a dead-letter topic with the outcomes of earlier dead letters.

The last header marks a receipt. A producer of events can't forge one: the last headers of a dead letter are the
worker's. Receipts outlive their dead letters, because retention deletes from the front.
"""

import enum
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from pipeline.dlq.headers import RECEIPT
from pipeline.dlq.letters import DlqRecord


class Outcome(enum.StrEnum):
    """State that a receipt gives to dead letters."""

    CLAIMED = "claimed"  # a run is about to requeue them
    REQUEUED = "requeued"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The outcome that a run of `chimera dlq` gave to some dead letters."""

    outcome: Annotated[Outcome, Field(alias="deed")]  # the name in the receipts that topics hold
    run: str
    """Id of the run."""
    letters: tuple[str, ...]
    """Ids of the dead letters."""
    ends: dict[int, int] = field(default_factory=dict)
    """End of each partition of the source topic before anything was requeued; only a claim has them."""

    @property
    def value(self) -> bytes:
        """Value of the receipt's record."""
        return _RECEIPT.dump_json(self, by_alias=True)

    @property
    def headers(self) -> list[tuple[str, bytes | None]]:
        """Headers of the receipt's record."""
        return [(RECEIPT, b"1")]


_RECEIPT = TypeAdapter(Receipt)


def read_receipt(record: DlqRecord) -> Receipt | None:
    """Read the receipt that a record holds; None for a dead letter and for anything unknown."""
    if not record.headers or record.headers[-1][0] != RECEIPT:
        return None
    try:
        return _RECEIPT.validate_json(record.value or b"")
    except ValidationError:
        return None
