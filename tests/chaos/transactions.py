"""Faults under a load of transactions: some are committed, others aborted, and several are open at once."""

from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from support.kafka_requests import watermarks

from chaos.faults import Fault, kill
from chaos.ledger import DAMAGED, SECONDS, Ledger, Produced, new_producer
from chaos.points import CLOCK_POINTS
from chaos.rollup import BEHIND_SECONDS, RollupWorld, kill_by_clock
from chaos.sessions import SessionLedger
from chaos.world import BURSTS, World
from pipeline.catalog import Catalog, Family
from pipeline.config import Settings
from pipeline.kafka.client import client_config

_PRODUCERS = 3  # with an open transaction each
_ABORTED = 0.3
_ENDED = 0.06  # probability that a transaction ends after a family's events
_POINTS = ("before_commit", "sent", "inserted", "dead_letters", "acked", "assign")


class _Transaction:
    """A producer with an open transaction, and an account of its records."""

    def __init__(self, settings: Settings, number: int) -> None:
        name = f"{settings.kafka.group_id}-{number}"
        self.producer = new_producer(settings.kafka, **{"transactional.id": name, "message.timeout.ms": "60000"})
        self.producer.init_transactions(SECONDS)
        self.account: dict[str, Produced] = {}
        self.open = False

    def begin(self, catalog: Catalog) -> None:
        """Begin if no transaction is open."""
        if not self.open:
            self.producer.begin_transaction()
            self.account, self.open = {family.name: Produced() for family in catalog.families}, True

    def end(self, *, abort: bool) -> Mapping[str, Produced]:
        """Commit or abort; return the records that count."""
        assert self.producer.flush(SECONDS) == 0, "the broker doesn't accept the published events"
        self.open = False
        if abort:
            self.producer.abort_transaction(SECONDS)
            return {}
        self.producer.commit_transaction(SECONDS)
        return self.account


class TransactionLedger(Ledger):
    """Producer of transactions. Records of aborted ones must be in no table and no dead-letter topic."""

    def __init__(self, settings: Settings, catalog: Catalog, seed: int, *more: Any) -> None:
        super().__init__(settings, catalog, seed, *more)
        self._catalog = catalog
        self._transactions = [_Transaction(settings, number) for number in range(_PRODUCERS)]

    @property
    def ends(self) -> Mapping[tuple[str, int], int]:
        """End offset of each topic and partition with records, behind the markers of transactions."""
        with closing(
            Consumer({**client_config(self._settings.kafka), "group.id": "ends", "isolation.level": "read_uncommitted"})
        ) as consumer:
            return {at: watermarks(consumer, TopicPartition(*at))[1] for at in super().ends}

    def produce(self, family: Family, count: int, *, damaged: float = DAMAGED) -> None:
        """Publish events in one of the open transactions; end it now and then."""
        chosen = self._random.choice(self._transactions)
        chosen.begin(self._catalog)
        self._producer, self._account = chosen.producer, chosen.account
        super().produce(family, count, damaged=damaged)
        if self._random.random() < _ENDED:
            self._end(chosen)

    def flush(self) -> None:
        """End all open transactions."""
        for transaction in self._transactions:
            if transaction.open:
                self._end(transaction)
        super().flush()

    def _end(self, transaction: _Transaction) -> None:
        committed = transaction.end(abort=self._random.random() < _ABORTED)
        for name, produced in committed.items():
            self._produced[name].valid |= produced.valid
            self._produced[name].damaged |= produced.damaged


class TransactionWorld(World):
    """A world in which all events are published in transactions."""

    def _make_ledger(self, seed: int) -> Ledger:
        return TransactionLedger(self.settings, self.catalog, seed)


class SessionTransactionLedger(TransactionLedger, SessionLedger):
    """The same for events of sessions."""


class RollupTransactionWorld(RollupWorld):
    """A world with ui_events only, which are published in transactions."""

    def _make_ledger(self, seed: int) -> SessionLedger:
        return SessionTransactionLedger(self.settings, self.catalog, seed, BEHIND_SECONDS * 1000)


FAULTS = (
    Fault("kill -9 among transactions, a third aborted", 12, partial(kill, _POINTS), TransactionWorld),
    Fault(
        "rollup: kill -9 among transactions",
        6,
        partial(kill_by_clock, list(CLOCK_POINTS)),
        RollupTransactionWorld,
    ),
)
"""The faults of the long suite."""

SAMPLE = (
    Fault("killed among transactions", 2, partial(kill, _POINTS), TransactionWorld, load=BURSTS),
    Fault("rollup killed among transactions", 1, partial(kill_by_clock, ["closed"]), RollupTransactionWorld),
)
"""A few runs for the short suite."""
