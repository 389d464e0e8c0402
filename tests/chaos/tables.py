"""Faults of tables that an administrator changes: a TTL expires rows, or columns are altered under a running worker."""

import random
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from chaos.faults import PATIENCE_SECONDS, Fault, kill, wait_for_rows
from chaos.ledger import START, Ledger, Verdict
from chaos.world import BURSTS, World, go
from pipeline.catalog import Catalog, Family
from pipeline.clickhouse.client import connect
from pipeline.config import Settings
from pipeline.errors import HaltError

_IN_SECONDS = 0.02  # share of events whose time is in seconds instead of milliseconds, and so of 1970
_EXPIRED_UNTIL = START.timestamp() + 36 * 3600  # a day of the events, and half of the next one
_EXPIRED_DAYS_UNTIL = _EXPIRED_UNTIL // 86_400 * 86_400
_MARGIN_SECONDS = 3600  # rows of this time may expire while the fault runs
_TTL_POINTS = ("sent", "inserted", "acked", "not_sent")


class ExpiringLedger(Ledger):
    """Producer of events of which some are older than the tables' TTL before they are stored.

    Events of days that have expired must be dead letters, and no rows. A row of another expired event may be in its
    table or not, but only once. It never counts as lost.
    """

    def __init__(self, settings: Settings, catalog: Catalog, seed: int) -> None:
        super().__init__(settings, catalog, seed)
        self._old: dict[str, set[uuid.UUID]] = {family.name: set() for family in catalog.families}
        self._of_expired_days: set[uuid.UUID] = set()

    def judge(self) -> Verdict:
        """Compare tables and dead-letter topics with what was produced, but for rows that may have expired."""
        verdict, dead = super().judge(), self._dead_letters()
        old = {
            identity: self._produced[name].valid[identity]
            for name, of_family in self._old.items()
            for identity in of_family & self._produced[name].valid.keys()
        }
        rows = [at for identity, at in old.items() if identity in self._of_expired_days and at not in dead]
        may_be_gone = set(old.values())
        return replace(verdict, lost=[*(at for at in verdict.lost if at not in may_be_gone), *rows])

    def _new_event(self, family: Family, identity: uuid.UUID) -> dict[str, Any]:
        event = super()._new_event(family, identity)
        if self._random.random() < _IN_SECONDS:
            event["ts"] //= 1000
        if event["ts"] < (_EXPIRED_UNTIL + _MARGIN_SECONDS) * 1000:
            self._old[family.name].add(identity)
        if event["ts"] < _EXPIRED_DAYS_UNTIL * 1000:
            self._of_expired_days.add(identity)
        return event


class ExpiringWorld(World):
    """A world whose tables have a TTL that expires the oldest events as soon as they are stored."""

    def expired_rows(self, family: Family) -> int:
        """Number of rows past the TTL that the table still has."""
        with connect(self.settings.clickhouse) as client:
            return int(
                client.execute(f"SELECT count() FROM {family.table} WHERE ts < toDateTime({_EXPIRED_UNTIL:.0f})")[0][0]
            )

    def _make_ledger(self, seed: int) -> Ledger:
        return ExpiringLedger(self.settings, self.catalog, seed)

    def _prepare_tables(self) -> None:
        super()._prepare_tables()
        kept = round(time.time() - _EXPIRED_UNTIL)
        with connect(self.settings.clickhouse) as client:
            for family in self.families:
                client.execute(
                    f"ALTER TABLE {family.table} MODIFY TTL toDateTime(ts) + INTERVAL {kept} SECOND"
                    " SETTINGS materialize_ttl_after_modify = 0"
                )
                client.execute(f"ALTER TABLE {family.table} MODIFY SETTING merge_with_ttl_timeout = 0")


class Alteration(NamedTuple):
    """A change of a table's columns, and its reverse, which brings all values of `column` back."""

    family: str
    column: str
    change: str
    reverse: str


def _retyped(family: str, column: str, other: str, own: str) -> Alteration:
    return Alteration(family, column, f"MODIFY COLUMN {column} {other}", f"MODIFY COLUMN {column} {own}")


ALTERATIONS = (
    _retyped("bench_runs", "cost_per_1k", "Decimal(18, 8)", "Decimal(10, 6)"),
    # No column is renamed: ClickHouse itself loses values of an insert that is under way then.
    _retyped("ui_events", "latency_ms", "UInt64", "UInt32"),
    _retyped("llm_events", "tokens_in", "UInt64", "UInt32"),
    Alteration("watcher_runs", "lag_seconds", "ADD COLUMN host String", "DROP COLUMN host"),
    _retyped("episodes", "cost_total", "Decimal(18, 7)", "Decimal(12, 6)"),
    _retyped("deployments", "url", "LowCardinality(String)", "String"),
)
"""A change of a column of each family."""


class AlteredLedger(Ledger):
    """Producer that also knows, of each event, the value of the column that is altered."""

    def __init__(self, settings: Settings, catalog: Catalog, seed: int) -> None:
        super().__init__(settings, catalog, seed)
        self._columns = {alteration.family: alteration.column for alteration in ALTERATIONS}
        self._values: dict[uuid.UUID, Any] = {}

    def judge(self) -> Verdict:
        """Compare tables and dead-letter topics with what was produced, and the columns' values too."""
        verdict = super().judge()
        wrong = [
            f"{family.table}: {identity}: {column}: expected {self._values[identity]}, found {value}"
            for family in self._families
            for column in [self._columns[family.name]]
            for identity, value in self._stored(family, column).items()
            if identity in self._values and value != type(value)(self._values[identity])
        ]
        return replace(verdict, strangers=[*verdict.strangers, *wrong])

    def _stored(self, family: Family, column: str) -> Mapping[uuid.UUID, Any]:
        with connect(self._settings.clickhouse) as client:
            return dict(client.execute(f"SELECT {family.key}, {column} FROM {family.table}"))

    def _new_event(self, family: Family, identity: uuid.UUID) -> dict[str, Any]:
        event = super()._new_event(family, identity)
        self._values[identity] = event[self._columns[family.name]]
        return event


class AlteredWorld(World):
    """A world whose columns are altered."""

    def _make_ledger(self, seed: int) -> Ledger:
        return AlteredLedger(self.settings, self.catalog, seed)

    @contextmanager
    def altered(self, alteration: Alteration) -> Iterator[None]:
        """Alter a column until the end of the block."""
        table = f"ALTER TABLE {self.catalog.family(alteration.family).table}"
        with connect(self.settings.clickhouse) as client:
            client.execute(f"{table} {alteration.change}")
            try:
                yield
            finally:
                client.execute(f"{table} {alteration.reverse}", settings={"mutations_sync": 1})


def _alter(alterations: Sequence[Alteration], world: World, rng: random.Random, runs: int) -> Iterator[None]:
    """Alter a column under a running worker, which must end; put the column back before the next worker starts."""
    assert isinstance(world, AlteredWorld)
    with world.load():
        go(worker := world.worker())
        for run in range(runs):
            successor = world.worker()
            wait_for_rows(worker.wait_until_consuming())
            time.sleep(rng.uniform(0, 0.3))
            with world.altered(alterations[run % len(alterations)]):
                assert worker.wait(PATIENCE_SECONDS) == HaltError.exit_code, worker.log[-2000:]
            go(worker := successor)
            yield
        worker.wait_until_consuming()


FAULTS = (
    Fault("kill -9, rows past the table's TTL", 12, partial(kill, _TTL_POINTS), ExpiringWorld),
    Fault("table altered, worker ends, table put back", 12, partial(_alter, ALTERATIONS), AlteredWorld),
)
"""The faults of the long suite."""

SAMPLE = (
    Fault("rows past the TTL", 2, partial(kill, _TTL_POINTS), ExpiringWorld, load=BURSTS),
    Fault("table altered", 2, partial(_alter, ALTERATIONS), AlteredWorld, load=BURSTS),
)
"""A few runs for the short suite."""
