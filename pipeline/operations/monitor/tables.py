"""Tables and server of ClickHouse over several looks, and what the model says about them."""

from collections import deque
from collections.abc import Iterable

from pipeline.clickhouse.observing import StorageFacts, TableFacts
from pipeline.operations.monitor.server_watch import moment
from pipeline.operations.monitor.state import DiskState, StorageState, TableState

_HOUR_SECONDS = 3600.0
_STEP_SECONDS = 30.0


class TableHistory:
    """Looks at the tables.

    Args:
        names: of the tables.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self._facts: StorageFacts | None = None
        self._errors_before: dict[str, int] | None = None
        self._errors_first: dict[str, int] = {}
        self._stored: dict[str, int] = {}
        self._consumed: dict[str, int] = {}
        self._consumed_since: dict[str, float] = {}
        self._steps = deque[tuple[float, dict[str, int]]](maxlen=int(_HOUR_SECONDS / _STEP_SECONDS) + 1)

    def add(self, at: float, facts: StorageFacts) -> None:
        """Add a look."""
        before = self._facts.tables if self._facts else {}
        self._errors_before = dict(self._facts.errors) if self._facts else dict(facts.errors)
        if self._facts is None or facts.uptime_seconds < self._facts.uptime_seconds:  # it was restarted
            self._errors_first = dict(facts.errors) if self._facts is None else {}
        self._facts = facts
        for name, table in facts.tables.items():
            newest = table.newest_insert or self._stored.get(name, 0) or table.newest_part
            if name in before and table.blocks > before[name].blocks:  # an insert, perhaps merged already
                newest = max(newest, table.newest_part)
            self._stored[name] = max(newest, self._stored.get(name, 0) if table.newest_insert else newest)
        if not self._steps or at - self._steps[-1][0] >= _STEP_SECONDS:
            self._steps.append((at, {name: table.rows for name, table in facts.tables.items()}))

    def consumed(self, at: float, name: str, records: int) -> None:
        """Note the number of records of a table's family that were consumed ever."""
        if records > self._consumed.get(name, records):
            self._consumed_since.setdefault(name, at)
        self._consumed[name] = records

    def unstored_seconds(self, now: float) -> dict[str, float]:
        """Return for how long records have been consumed and no rows stored, by table.

        The time begins with the first record that is consumed since the last insert. So nothing is known against a
        table that was quiet before, or is empty, until time has passed.
        """
        for name, stored in self._stored.items():  # rows are stored before their records count as consumed
            if stored > self._consumed_since.get(name, stored) - _STEP_SECONDS:
                self._consumed_since.pop(name, None)
        return {name: now - since for name, since in self._consumed_since.items()}

    def tables(self, now: float) -> tuple[TableState, ...]:
        """Return the state of the tables."""
        found = self._facts.tables if self._facts else {}
        return tuple(self._table(name, found.get(name), now) for name in self.names)

    def newest_event(self, name: str) -> float | None:
        """Return the greatest time in a table, in seconds since 1970; None if it has no rows."""
        table = self._facts.tables.get(name) if self._facts else None
        return table.newest_event if table else None

    def storage(self) -> StorageState:
        """Return the state of the server."""
        facts = self._facts
        if facts is None:
            return StorageState(None, None, None, (), {}, 0)
        before = self._errors_before or {}
        gained = {name: count - self._errors_first.get(name, 0) for name, count in facts.errors.items()}
        return StorageState(
            version=facts.version,
            uptime_seconds=facts.uptime_seconds,
            merges=facts.merges,
            disks=tuple(DiskState(*disk) for disk in facts.disks),
            errors={name: count for name, count in sorted(gained.items()) if count > 0},
            errors_since_look=sum(max(0, count - before.get(name, 0)) for name, count in facts.errors.items()),
        )

    def _table(self, name: str, facts: TableFacts | None, now: float) -> TableState:
        if facts is None:
            return TableState(name, self._facts is not None, None, None, 0.0, None, None, None, None, None)
        since, rows = next(((at, rows) for at, rows in self._steps if now - at <= _HOUR_SECONDS), (now, {}))
        return TableState(
            name=name,
            missing=False,
            rows=facts.rows,
            rows_last_hour=facts.rows - rows.get(name, facts.rows),
            watched_seconds=round(now - since, 3),
            newest_event=moment(facts.newest_event),
            newest_stored=moment(self._stored.get(name)),
            bytes_on_disk=facts.bytes_on_disk,
            parts=facts.parts,
            most_parts=facts.most_parts,
        )
