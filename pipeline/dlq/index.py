"""An index of one dead-letter topic: each dead letter once, with its number of copies and its state.

The index is a temporary SQLite database that moves to disk as it grows, so memory is bounded however many dead letters
there are. It holds places, reasons and states, and no content of any record.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from pipeline.dlq.letters import OPEN, DlqRecord, Letter, read_letter
from pipeline.dlq.receipts import Outcome, Receipt, read_receipt

CLAIM_SECONDS = 60
"""Age at which a claim no longer holds. By then its run has produced the records, or never will."""

UNSETTLED = frozenset({OPEN, Outcome.CLAIMED.value})
"""States of dead letters that still have to be requeued or dropped."""

_TABLES = """
CREATE TABLE letters (id TEXT PRIMARY KEY, partition INT, offset INT, source_partition INT, source_offset INT,
                      reason TEXT, attempts INT, whole INT, failed_at REAL, copies INT);
CREATE INDEX places ON letters (partition, offset);
CREATE TABLE outcomes (id TEXT PRIMARY KEY, state TEXT, run TEXT, claimed_at INT, first_run TEXT, ends TEXT);
CREATE VIEW known AS SELECT letters.*, coalesce(state, 'open') AS state FROM letters LEFT JOIN outcomes USING (id);
"""
_COUNTS = "SELECT reason, state, count(*), sum(copies - 1), min(failed_at), max(failed_at) FROM known"
_LETTERS = """
SELECT id, partition, offset, source_partition, source_offset, reason, attempts, whole, copies, state, failed_at
FROM known
"""
_ADD_LETTER = """
INSERT INTO letters VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT (id) DO UPDATE SET copies = copies + 1
"""
# A claim holds until it is too old. The ends of the first claim stay: the records of its run come after them.
_ADD_CLAIM = """
INSERT INTO outcomes VALUES (?1, 'claimed', ?2, ?3, ?2, ?4)
ON CONFLICT (id) DO UPDATE SET run = excluded.run, claimed_at = excluded.claimed_at
WHERE state = 'claimed' AND (run = excluded.run OR excluded.claimed_at >= claimed_at + ?5)
"""
_ADD_RECEIPT = """
INSERT INTO outcomes VALUES (?1, ?2, ?3, NULL, NULL, NULL)
ON CONFLICT (id) DO UPDATE SET state = excluded.state WHERE state = 'claimed'
"""


class Place(NamedTuple):
    """Partition and offset, in the source topic or in its dead-letter topic."""

    dead_letter: bool
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions that dead letters meet; without any, all do."""

    reasons: frozenset[str] = frozenset()
    since: datetime | None = None
    """Rejected at this time or later."""
    until: datetime | None = None
    """Rejected before this time."""
    places: frozenset[Place] = frozenset()
    states: frozenset[str] = field(default=UNSETTLED)
    attempts_below: int | None = None
    """Rejected less often than this, whole, and not foreign: the dead letters that can be requeued."""

    def _conditions(self) -> Iterator[tuple[str, list[Any]]]:
        yield _one_of("state", self.states)
        if self.reasons:
            yield _one_of("reason", self.reasons)
        if self.since:
            yield "failed_at >= ?", [self.since.timestamp()]
        if self.until:
            yield "failed_at < ?", [self.until.timestamp()]
        if self.attempts_below is not None:
            yield "attempts < ? AND whole AND source_partition IS NOT NULL", [self.attempts_below]
        if self.places:
            own = [list(place[1:]) for place in self.places if place.dead_letter]
            source = [list(place[1:]) for place in self.places if not place.dead_letter]
            either = f"({_places('', own)} OR {_places('source_', source)})"
            yield either, [number for place in own + source for number in place]

    def where(self) -> tuple[str, list[Any]]:
        """Return an SQL condition and the values of its parameters."""
        conditions = list(self._conditions())
        return " AND ".join(sql for sql, _ in conditions), [value for _, values in conditions for value in values]


def _one_of(column: str, values: frozenset[str]) -> tuple[str, list[Any]]:
    return f"{column} IN ({', '.join('?' * len(values))})", sorted(values)


def _places(prefix: str, places: list[list[int]]) -> str:
    rows = ", ".join(["(?, ?)"] * len(places))
    return f"({prefix}partition, {prefix}offset) IN (VALUES {rows})" if places else "FALSE"


@dataclass(frozen=True, slots=True)
class Count:
    """Number of dead letters with the same reason and state, of further copies of them, and their time range."""

    reason: str
    state: str
    letters: int
    copies: int
    first: datetime
    last: datetime


class Index:
    """Index of a dead-letter topic.

    Args:
        source: topic that the records of the dead letters come from.
        claim_seconds: age at which a claim no longer holds.
    """

    def __init__(self, source: str, *, claim_seconds: float = CLAIM_SECONDS) -> None:
        self._source = source
        self._claim_ms = round(claim_seconds * 1000)
        self._database = sqlite3.connect("")  # a file without a name, gone when it is closed
        self._database.executescript(_TABLES)

    def add(self, record: DlqRecord, *, only_receipts: bool = False) -> None:
        """Add a record of the topic. Each is added once, those of a partition in the order of their offsets."""
        receipt = read_receipt(record)
        if receipt:
            self._add_receipt(receipt, record.timestamp)
        elif not only_receipts:
            self._add_letter(read_letter(self._source, record))

    def _add_letter(self, letter: Letter) -> None:
        place = (letter.partition, letter.offset, letter.source_partition, letter.source_offset)
        facts = (letter.reason, letter.attempts, letter.whole, letter.failed_at.timestamp())
        self._database.execute(_ADD_LETTER, (letter.id, *place, *facts))

    def _add_receipt(self, receipt: Receipt, timestamp: int) -> None:
        if receipt.outcome is Outcome.CLAIMED:
            ends = orjson.dumps(receipt.ends, option=orjson.OPT_NON_STR_KEYS)
            facts = (receipt.run, timestamp, ends, self._claim_ms)
            self._database.executemany(_ADD_CLAIM, [(id_, *facts) for id_ in receipt.letters])
        else:
            self._database.executemany(_ADD_RECEIPT, [(id_, receipt.outcome, receipt.run) for id_ in receipt.letters])

    def counts(self, selection: Selection) -> list[Count]:
        """Count the selected dead letters by reason and state, in this order."""
        where, values = selection.where()
        found = self._database.execute(f"{_COUNTS} WHERE {where} GROUP BY reason, state ORDER BY reason, state", values)
        return [
            Count(reason, state, letters, copies, _time(first), _time(last))
            for reason, state, letters, copies, first, last in found
        ]

    def count(self, selection: Selection) -> int:
        """Return the number of selected dead letters."""
        return sum(count.letters for count in self.counts(selection))

    def page(self, selection: Selection, limit: int, after: tuple[int, int] = (-1, -1)) -> list[Letter]:
        """Return a page of one partition.

        Args:
            selection: conditions.
            limit: most dead letters in the page.
            after: partition and offset of the last dead letter of the page before.
        """
        where, values = selection.where()
        found = self._database.execute(
            f"{_LETTERS} WHERE (partition, offset) > (?, ?) AND {where} ORDER BY partition, offset LIMIT ?",
            [*after, *values, limit],
        )
        found.row_factory = sqlite3.Row
        letters = [Letter(**{**dict(row), "failed_at": _time(row["failed_at"])}) for row in found]
        return [letter for letter in letters if letter.partition == letters[0].partition]

    def claimed(self, letters: Iterable[Letter], run: str) -> tuple[list[Letter], dict[str, dict[int, int]]]:
        """Return the dead letters that this run has claimed, and the ends of earlier claims on them, by id."""
        ours, doubtful = [], {}
        for letter in letters:
            state, holder, first_run, ends = self._database.execute(
                "SELECT state, run, first_run, ends FROM outcomes WHERE id = ?", [letter.id]
            ).fetchone()
            if state == Outcome.CLAIMED and holder == run:
                ours.append(letter)
                if first_run != run:
                    doubtful[letter.id] = {int(partition): end for partition, end in orjson.loads(ends).items()}
        return ours, doubtful


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
