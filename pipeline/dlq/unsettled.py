"""Count of the dead letters of one topic that are still to be settled, kept up record by record.

`pipeline.dlq.index` answers any question about a whole topic; this is one number by reason that a watcher asks for all
the time. It costs nothing when nothing is new, and the ids stand in a temporary SQLite database that moves to disk.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping

from pipeline.dlq.letters import DlqRecord, read_letter
from pipeline.dlq.receipts import Outcome, read_receipt

_TABLES = """
CREATE TABLE letters (id TEXT PRIMARY KEY, reason TEXT, partition INT, offset INT, failed_at REAL) WITHOUT ROWID;
CREATE INDEX places ON letters (partition, offset);
CREATE INDEX times ON letters (failed_at);
CREATE TABLE settled (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_ADD = """
INSERT INTO letters SELECT ?1, ?2, ?3, ?4, ?5 WHERE NOT EXISTS (SELECT 1 FROM settled WHERE id = ?1)
ON CONFLICT DO NOTHING
"""


class Unsettled:
    """Dead letters of a topic without those that were requeued or dropped; copies count once.

    Args:
        source: topic that the records of the dead letters come from.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._counts = Counter[str]()
        self._database = sqlite3.connect("", check_same_thread=False)  # a file without a name, gone when it is closed
        self._database.executescript(_TABLES)

    def add(self, record: DlqRecord) -> bool:
        """Add a record of the topic, a dead letter or a receipt; those of a partition in the order of their offsets.

        Returns:
            True if it is a dead letter that isn't settled, and no copy of another.
        """
        if (receipt := read_receipt(record)) is None:
            letter = read_letter(self._source, record)
            facts = (letter.id, letter.reason, letter.partition, letter.offset, letter.failed_at.timestamp())
            added = self._database.execute(_ADD, facts).rowcount
            self._counts[letter.reason] += added
            return added > 0
        if receipt.outcome is not Outcome.CLAIMED:
            self._settle(receipt.letters)
        return False

    def forget(self, begins: Mapping[int, int]) -> int:
        """Forget dead letters that retention has deleted: those before the first offset of their partition.

        Returns:
            Number of dead letters that nobody had settled.
        """
        gone = 0
        for partition, begin in begins.items():
            sql = "DELETE FROM letters WHERE partition = ? AND offset < ? RETURNING reason"
            reasons = Counter(reason for (reason,) in self._database.execute(sql, (partition, begin)))
            self._counts -= reasons
            gone += reasons.total()
        return gone

    def counts(self) -> dict[str, int]:
        """Return the number of dead letters by reason."""
        return dict(+self._counts)

    def oldest(self) -> float | None:
        """Return the time of the oldest one, in seconds since 1970; None if there is none."""
        ((time,),) = self._database.execute("SELECT min(failed_at) FROM letters")
        return None if time is None else float(time)

    def _settle(self, ids: Iterable[str]) -> None:
        for id_ in ids:
            self._database.execute("INSERT INTO settled VALUES (?) ON CONFLICT DO NOTHING", (id_,))
            gone = self._database.execute("DELETE FROM letters WHERE id = ? RETURNING reason", (id_,)).fetchall()
            self._counts -= Counter(reason for (reason,) in gone)
