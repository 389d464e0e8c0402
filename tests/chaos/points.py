"""The points at which a worker may be killed or frozen: methods of the pipeline, wrapped before Faust runs."""

import threading
from collections.abc import Callable
from typing import Any

from aiokafka.consumer.group_coordinator import GroupCoordinator
from clickhouse_driver import Client

import pipeline.clickhouse.native
from chaos.trap import Matches, Point, Trap
from pipeline.clickhouse.session_stats import TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.dlq.writer import DeadLetters
from pipeline.kafka.producing import RecordProducer
from pipeline.retry import Retry
from pipeline.rollup.derivation import Derivation
from pipeline.rollup.keys import MANIFEST, Key
from pipeline.rollup.partition import PartitionWindows
from pipeline.rollup.store import SnapshotStore
from pipeline.transport.adapter.broker import ThreadBroker
from pipeline.transport.commits import Commits
from pipeline.transport.consumer import MicroBatchConsumer
from pipeline.transport.micro_batch import MicroBatch
from pipeline.transport.rebalance import Rebalance


def _insert_into(trap: Trap) -> Matches:
    return lambda _, table, *__: bool(table == trap.table)


def _of_batch(trap: Trap) -> Matches:
    return lambda _, batch, *__: bool(batch.topic == trap.topic)


def _any_of(trap: Trap) -> Matches:
    return lambda *arguments: any(tp.topic == trap.topic for tp in arguments[-1])


def _within_insert(owner: Any, name: str) -> Callable[[Trap], None]:
    """A method that knows nothing of the table: what its thread inserts into is remembered."""

    def set_up(trap: Trap) -> None:
        thread = threading.local()

        def remember(_: Any, table: str, *__: Any) -> bool:
            thread.table = table
            return False

        trap.before(Sink, "insert", remember)
        trap.before(owner, name, lambda *_: getattr(thread, "table", None) == trap.table)

    return set_up


def _of_stats(set_up: Callable[[Trap], None]) -> Callable[[Trap], None]:
    """The same on the way of an hour's rows."""

    def of_stats(trap: Trap) -> None:
        trap.table = TABLE
        set_up(trap)

    return of_stats


def _between_chunks(trap: Trap) -> None:
    """Count a passing before each chunk but the first, after the broker has stored the chunks before it."""

    def is_later_chunk(producer: RecordProducer, _: str, value: bytes | None, key: bytes | None = None) -> bool:
        parsed = Key.parse(key or b"")
        if value is None or parsed is None or parsed.part in {"0", MANIFEST}:
            return False
        producer.flush()
        return True

    trap.before(RecordProducer, "produce", is_later_chunk)


def _manifest(_: Any, __: int, values: Any) -> bool:
    return any(value is not None and key.part == MANIFEST for key, value in values.items())


def _in_replay(trap: Trap) -> None:
    replaying: dict[int, bool] = {}

    def remember(derivation: Derivation, batch: MicroBatch, *_: Any) -> bool:
        replaying[id(derivation.windows)] = batch.replayed
        return False

    trap.before(Derivation, "add", remember)
    trap.after(PartitionWindows, "add", lambda windows, *_: replaying.get(id(windows), False))


def _closed_and_emitted(trap: Trap) -> None:
    by_clock = threading.Event()

    def remember(*_: Any) -> bool:
        by_clock.set()
        return False

    trap.after(Commits, "close_by_clock", remember)
    trap.before(PartitionWindows, "remove", lambda *_: by_clock.is_set())


def _always(*_: Any) -> bool:
    return True


INGEST_POINTS = {
    "before_commit": Point(
        lambda trap: trap.before(ThreadBroker, "commit", _any_of(trap)), "before the range is committed"
    ),
    "before_lease": Point(lambda trap: trap.before(Retry, "check_lease", _of_batch(trap)), "committed, lease not read"),
    "not_sent": Point(lambda trap: trap.before(Sink, "insert", _insert_into(trap)), "committed, not sent"),
    "asked": Point(_within_insert(pipeline.clickhouse.native, "write_block"), "query sent, data not"),
    "sent": Point(_within_insert(Client, "receive_end_of_insert_query"), "sent, no reply"),
    "inserted": Point(lambda trap: trap.after(Sink, "insert", _insert_into(trap)), "inserted, not acked"),
    "dead_letters": Point(lambda trap: trap.after(DeadLetters, "send", _of_batch(trap)), "dead letters written"),
    "acked": Point(
        lambda trap: trap.after(MicroBatch, "ack", lambda batch: bool(batch.topic == trap.topic)),
        "acked, not committed",
    ),
    "commit": Point(
        lambda trap: trap.during(GroupCoordinator, "_do_commit_offsets", _any_of(trap), 0.002), "during a commit"
    ),
    "revoke": Point(
        lambda trap: trap.during(MicroBatchConsumer, "on_partitions_revoked", _any_of(trap), 0.02), "during a revoke", 1
    ),
    "assign": Point(
        lambda trap: trap.before(Rebalance, "_batches_of", lambda _, tp, *__: bool(tp.topic == trap.topic)),
        "during an assignment",
        2,
    ),
}
"""Name to point, in the order in which a micro-batch passes them."""

ROLLUP_POINTS = {
    "added": Point(lambda trap: trap.after(PartitionWindows, "add", _always), "mid-batch, events in their windows"),
    "hour_not_sent": Point(_of_stats(INGEST_POINTS["not_sent"].set_up), "hour closed, rows not sent", 4),
    "hour_asked": Point(_of_stats(INGEST_POINTS["asked"].set_up), "hour closed, query sent, rows not", 4),
    "hour_sent": Point(_of_stats(INGEST_POINTS["sent"].set_up), "rows of an hour sent, no reply", 4),
    "emitted": Point(lambda trap: trap.before(PartitionWindows, "remove", _always), "between emission and removal", 4),
    "removed": Point(lambda trap: trap.after(PartitionWindows, "remove", _always), "windows removed, no snapshot", 4),
    "chunks": Point(_between_chunks, "between chunks of a snapshot"),
    "manifest": Point(lambda trap: trap.before(SnapshotStore, "_send", _manifest), "before a snapshot's manifest", 4),
    "whole": Point(lambda trap: trap.after(SnapshotStore, "_send", _manifest), "snapshot whole, old ones there", 4),
    "loading": Point(
        lambda trap: trap.before(SnapshotStore, "_note", _always), "recovery: snapshots half read", in_recovery=True
    ),
    "loaded": Point(
        lambda trap: trap.after(SnapshotStore, "load", _always), "recovery: snapshots read", 1, in_recovery=True
    ),
    "replayed": Point(_in_replay, "recovery: during a replayed batch", 1, in_recovery=True),
}
"""The same for the hourly rollup."""

CLOCK_POINTS = {
    "closing": Point(lambda trap: trap.before(Commits, "close_by_clock", _always), "before a closing is committed", 2),
    "closed": Point(lambda trap: trap.after(Commits, "close_by_clock", _always), "closing committed, not applied", 2),
    "closed_emitted": Point(_closed_and_emitted, "rows of a closing stored, not removed", 2),
}
"""The same where the log has come to rest, and the clock closes hours."""

POINTS = INGEST_POINTS | ROLLUP_POINTS | CLOCK_POINTS
"""All of them."""
