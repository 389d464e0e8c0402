"""Checks of the tables under a running worker: their engines and their deduplication windows.

Both may be altered at any time. An insert that is repeated afterwards would be stored twice, without a word from the
server.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

import structlog

from pipeline.catalog import Catalog
from pipeline.clickhouse.deduplication import check_deduplication_windows, filled_tables, window_shares
from pipeline.clickhouse.table_checks import TABLE_CHECKS
from pipeline.config import Settings
from pipeline.errors import ChimeraError, HaltError, UnavailableError, UnclearError

log = structlog.get_logger("chimera.tables")


class TableWatch:
    """Repeats the checks that the worker made at its start.

    Args:
        settings: server, and the settings for which the windows must be wide enough.
        catalog: families and the rollup.
        partitions: gives the number of partitions that topics have now, by name.
        share: called with the blocks that each partition may insert, by table; see `BlockBudget`.
        pause_seconds: time between two checks.
        answer_seconds: time that a takeover waits for a check; the check then goes on beside it.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        partitions: Callable[[Iterable[str]], dict[str, int]],
        *,
        share: Callable[[Mapping[str, float]], None] = lambda _: None,
        pause_seconds: float = 30.0,
        answer_seconds: float = 5.0,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._partitions = partitions
        self._share = share
        self._pause_seconds = pause_seconds
        self._answer_seconds = answer_seconds
        self._due = asyncio.Event()
        self._first: dict[str, int] = {}  # partitions by topic when they were first known
        self._warned: dict[str, int] = {}

    async def before_takeover(self) -> None:
        """Check before repeated inserts; without an answer in time, soon afterwards.

        Raises:
            HaltError: a table isn't as the worker needs it.
        """
        try:
            async with asyncio.timeout(self._answer_seconds):
                await self.check()
        except TimeoutError:
            self._due.set()

    async def run(self, halt: Callable[[ChimeraError], None]) -> None:
        """Check for ever; halt the worker when a table isn't as it needs it."""
        while True:
            try:
                async with asyncio.timeout(self._pause_seconds):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            try:
                await self.check()
            except ChimeraError as error:
                halt(error)

    async def check(self) -> None:
        """Check all tables that the worker fills; a server that doesn't answer is asked again the next time.

        A window that is too narrow for partitions that were added meanwhile is only logged, once: adding partitions
        needs no restart, and all workers would end at the same time.

        Raises:
            HaltError: a table has another engine or a window that is too narrow; the same message as at the start.
        """
        families = self._catalog.families
        partitions = self._partitions(family.topic.name for family in families)
        try:
            await asyncio.to_thread(self._check, partitions)
        except (UnavailableError, UnclearError) as error:
            log.debug("can't look at the tables' engines and windows", error=str(error))

    def _check(self, partitions: dict[str, int]) -> None:
        tables = [table for table, *_ in filled_tables(self._settings, self._catalog)]
        for repeated in (each for each in TABLE_CHECKS if each.repeated):
            repeated.run(self._settings.clickhouse, tables)
        self._first = {topic: self._first.get(topic) or number for topic, number in partitions.items()}
        check_deduplication_windows(self._settings, self._catalog, self._first)
        if partitions != self._first:
            try:
                check_deduplication_windows(self._settings, self._catalog, partitions)
            except HaltError as error:
                if partitions != self._warned:
                    log.warning("partitions were added, the next start of a worker will be refused", reason=str(error))
            self._warned = partitions
        # A share is of all partitions, also if there are too many by now.
        self._share(window_shares(self._settings, self._catalog, partitions))
