"""Manifest: what is known of each backup, in the table `chimera_backups` of the database that is backed up.

The entry that a backup begins is written before the backup, so each backup holds its own offsets, and the entries of
all earlier ones. A server that lost its database gets them back from any backup (`adopt`). Entries are only added.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.replicas import for_cluster
from pipeline.config import ClickHouseSettings
from pipeline.errors import ConfigError

TABLE = "chimera_backups"
_CREATE = f"""
CREATE TABLE IF NOT EXISTS {TABLE} (
    name String, at DateTime64(3, 'UTC'), event LowCardinality(String), facts String
) ENGINE=MergeTree ORDER BY (name, at)
"""
_THERE = "SELECT count() FROM system.tables WHERE database = %(database)s AND name = %(table)s"
_READ = "SELECT name, event, facts FROM {table} {where} ORDER BY at, event"
_OUTLINES = """
SELECT name, groupUniqArray(event) AS events, maxIf(at, event = 'verified') AS verified
FROM {table} WHERE NOT startsWith(name, %(restore)s)
GROUP BY name HAVING has(events, 'began') ORDER BY minIf(at, event = 'began'), name
"""
_RESTORE = "restore:"  # begins the name of an entry about a restore


@dataclass(frozen=True, slots=True)
class Noted:
    """Offsets of one topic that the group had committed before a backup began."""

    topic: str
    topic_id: str
    offsets: Mapping[int, int]
    """By partition; rows of records below them are in the backup."""


@dataclass(frozen=True, slots=True)
class BackupOutline:
    """Name and events of one backup, without its facts, which may be large.

    Args:
        name: of the backup.
        events: of its entries.
        verified_at: time of its last verification, whatever it found; 1970 if there was none.
    """

    name: str
    events: frozenset[str]
    verified_at: datetime

    @property
    def state(self) -> str:
        """One of `pruned`, `ok`, `failed` and `running`."""
        return _state(self.events)


@dataclass(frozen=True, slots=True)
class BackupRecord:
    """Everything that the manifest has of one backup."""

    name: str
    facts: Mapping[str, Any]
    events: frozenset[str] = field(default_factory=frozenset)

    @property
    def state(self) -> str:
        """One of `pruned`, `ok`, `failed` and `running`."""
        return _state(self.events)

    @property
    def began_at(self) -> datetime:
        """Time at which its offsets were noted, by the clock of the machine that made it."""
        return datetime.fromisoformat(self.facts["began_at"])

    @property
    def base(self) -> str | None:
        """Name of the backup that it builds on; None for a full one."""
        base: str | None = self.facts.get("base")
        return base

    @property
    def place(self) -> str:
        """Destination, as `Destination` writes it."""
        return str(self.facts["destination"])

    @property
    def tables(self) -> tuple[str, ...]:
        """Tables in it."""
        return tuple(self.facts["tables"])

    @property
    def days(self) -> tuple[str, ...]:
        """Days that it is limited to; empty for all."""
        return tuple(self.facts["days"])

    @property
    def whole(self) -> bool:
        """True if it has all tables of the database with all days."""
        return bool(self.facts["whole"])

    @property
    def noted(self) -> Mapping[str, Noted]:
        """Noted offsets by the name of the family."""
        return {
            family: Noted(each["topic"], each["topic_id"], {int(p): o for p, o in each["offsets"].items()})
            for family, each in self.facts["topics"].items()
        }

    @property
    def figures(self) -> Mapping[str, Mapping[str, Any]] | None:
        """Counts and checksums by table and day, in the form of `figures.py`; None if they are unknown."""
        figures: Mapping[str, Mapping[str, Any]] | None = self.facts.get("figures")
        return figures


class Manifest:
    """The manifest of the configured database; methods raise UnavailableError and HaltError.

    Args:
        settings: server and database.
    """

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings

    def ensure(self) -> None:
        """Create the table if it is missing, and the database with it; on a cluster, on all of its servers."""
        cluster = self._settings.cluster
        with explained(self._settings):
            with connect(self._settings, database="") as client:
                on_cluster = f" ON CLUSTER `{cluster}`" if cluster else ""
                client.execute(f"CREATE DATABASE IF NOT EXISTS `{self._settings.database}`{on_cluster}")
            with connect(self._settings) as client:
                client.execute(for_cluster(_CREATE, prefix=self._settings.engine_prefix, cluster=cluster))

    def add(self, name: str, event: str, facts: Mapping[str, Any]) -> None:
        """Add an entry; later entries add to the facts of earlier ones."""
        row = {"name": name, "at": datetime.now(UTC), "event": event, "facts": orjson.dumps(facts).decode()}
        with explained(self._settings), connect(self._settings) as client:
            client.execute(f"INSERT INTO {TABLE} (name, at, event, facts) VALUES", [row])

    def outlines(self) -> tuple[BackupOutline, ...]:
        """Return all backups without their facts, the oldest first; none if there is no table."""
        rows = self._rows(_OUTLINES, {"restore": _RESTORE})
        return tuple(BackupOutline(name, frozenset(events), verified) for name, events, verified in rows)

    def records(self, names: Sequence[str] | None = None) -> tuple[BackupRecord, ...]:
        """Return all backups, or those of these names, the oldest first; none if there is no table."""
        by_name = self._by_name(names)
        found = [
            BackupRecord(name, _merged(entries), frozenset(event for event, _ in entries))
            for name, entries in by_name.items()
            if not name.startswith(_RESTORE) and any(event == "began" for event, _ in entries)
        ]
        return tuple(sorted(found, key=lambda record: (record.began_at, record.name)))

    def record(self, name: str) -> BackupRecord:
        """Return a backup by its name.

        Raises:
            ConfigError: the manifest doesn't have it.
        """
        for record in self.records():
            if record.name == name:
                return record
        raise ConfigError(
            f"no backup {name!r} in {self._settings.database}.{TABLE} at {self._settings.address}; expected one of "
            "`chimera backup list`; one of another server or of a lost database is made known by `chimera backup "
            "adopt`"
        )

    def restore_of(self, target: str) -> Mapping[str, Any]:
        """Return the facts of the last restore into a database; empty if there was none."""
        return _merged(self._by_name().get(_RESTORE + target, ()), since="restoring")

    def note_restore(self, target: str, event: str, facts: Mapping[str, Any]) -> None:
        """Add an entry about the restore into a database; the event `restoring` begins a new one."""
        self.add(_RESTORE + target, event, {**facts, "step": event})

    def add_missing(self, rows: Iterable[Sequence[Any]]) -> int:
        """Add entries of another manifest that this one lacks: name, at, event and facts; return their number."""
        with explained(self._settings), connect(self._settings) as client:
            have = set(all_rows(client, f"SELECT name, event, facts FROM {TABLE}"))  # noqa: S608 (a name of ours)
            new = [row for row in rows if (row[0], row[2], row[3]) not in have and not row[0].startswith(_RESTORE)]
            if new:
                client.execute(f"INSERT INTO {TABLE} (name, at, event, facts) VALUES", new)
        return len(new)

    def _by_name(self, names: Sequence[str] | None = None) -> dict[str, list[tuple[str, dict[str, Any]]]]:
        by_name: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        where = "" if names is None else "WHERE name IN %(names)s"
        for name, event, facts in self._rows(_READ.replace("{where}", where), {"names": tuple(names or ("",))}):
            by_name.setdefault(name, []).append((event, orjson.loads(facts)))
        return by_name

    def _rows(self, query: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a query about `{table}`; none if it is missing, or its database."""
        database = self._settings.database
        with explained(self._settings), connect(self._settings, database="") as client:
            if not all_rows(client, _THERE, {"database": database, "table": TABLE})[0][0]:
                return []
            return list(all_rows(client, query.replace("{table}", f"`{database}`.{TABLE}"), parameters))


def chain_of(name: str, records: Iterable[BackupRecord]) -> tuple[str, ...]:
    """Return a backup and the ones that it builds on, down to the full one; names that aren't known end the chain."""
    by_name = {record.name: record for record in records}
    chain: list[str] = []
    at: str | None = name
    while at is not None and at not in chain:
        chain.append(at)
        at = by_name[at].base if at in by_name else None
    return tuple(chain)


def _state(events: frozenset[str]) -> str:
    for event, state in (("pruned", "pruned"), ("done", "ok"), ("failed", "failed")):
        if event in events:
            return state
    return "running"


def _merged(entries: Iterable[tuple[str, Mapping[str, Any]]], since: str = "") -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for event, added in entries:
        facts = dict(added) if event == since else {**facts, **added}
    return facts
