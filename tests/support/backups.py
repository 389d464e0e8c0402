"""Backups in tests: a log whose rows are stored up to the commits, and the state of its table at any moment."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clickhouse_driver import Client

from pipeline.config import Settings
from support.commands import Chimera
from support.events import rows
from support.replays import UiEvents

_PAUSE_SECONDS = 0.02  # a moment lies between the milliseconds of two records


class StoredEvents:
    """ui_events, its log, and the commands; a fill stands for the worker.

    Args:
        log: log and table.
        chimera: runs a command.
    """

    def __init__(self, log: UiEvents, chimera: Chimera) -> None:
        self.log = log
        self._chimera = chimera

    def add(self, count: int) -> datetime:
        """Produce, commit and store more events; return a moment after them and before the next ones."""
        self.log.produce(count)
        assert self._chimera("replay", "ui_events", "--execute", "--no-rollup").returncode == 0
        time.sleep(_PAUSE_SECONDS)
        moment = datetime.now(UTC)
        time.sleep(_PAUSE_SECONDS)
        return moment

    def backup(self, *arguments: str) -> dict[str, Any]:
        """Make a backup, and return its facts."""
        return self._chimera("backup", "create", "--json", *arguments).facts

    def in_database(self, database: str) -> Settings:
        """Return the settings with another database."""
        clickhouse = self.log.settings.clickhouse.model_copy(update={"database": database})
        return self.log.settings.model_copy(update={"clickhouse": clickhouse})

    def has(self, database: str, count: int) -> bool:
        """Tell whether ui_events of a database has the rows of the first events, each once."""
        found = rows(self.in_database(database), "ui_events")
        return len(found) == count == self.log.common(found) and _of_first(self.log, found, count)

    def folder(self, client: Client) -> Path:
        """Return the folder of the disk `backups`."""
        return Path(client.execute("SELECT path FROM system.disks WHERE name = 'backups'")[0][0])


def _of_first(log: UiEvents, found: list[Mapping[str, Any]] | list[dict[str, Any]], count: int) -> bool:
    first = UiEvents.__new__(UiEvents)
    first.family, first.events = log.family, log.events[:count]
    return first.complete(dict(row) for row in found)


def at(moment: datetime) -> str:
    """Write a moment as `--to` takes it."""
    return moment.isoformat()
