"""The way of a micro-batch: decoded, validated, inserted, acknowledged, whatever fails on the way.

What a failed step leads to is decided by its kind (`pipeline.errors.FailureKind`): the same block with the same token
again, for as long as it takes; a halt, with nothing acknowledged; or, when ClickHouse refuses the data, looking for the
guilty rows (`pipeline.clickhouse.refusals`) and inserting the others. What is rejected goes to the dead-letter topic.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from time import perf_counter

import structlog

from pipeline import metrics
from pipeline.catalog import Family
from pipeline.clickhouse.client import kind_of
from pipeline.clickhouse.refusals import find_refused
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Rejection, Rows, select
from pipeline.config import WorkerSettings
from pipeline.decode.decoder import Decoder
from pipeline.dlq.writer import DeadLetters
from pipeline.errors import FailureKind, HaltError
from pipeline.retry import Attempts, LostPartitionError, Renew
from pipeline.transport.batches import MicroBatch
from pipeline.worker.reject_rate import Brake

_MOST_TURNS = 5
_LOGGED_REJECTIONS = 10  # of one micro-batch; all of them are counted


class Ingest:
    """Takes the micro-batches of one family to their table.

    Args:
        family: whose they are.
        decoder: of that family.
        sink: where its table is.
        dead_letters: where its rejected records go.
        renew: records the range of a micro-batch again; False when it isn't ours any more.
        pool: threads to decode and insert in.
        settings: lease, and pauses between attempts.
    """

    def __init__(
        self,
        family: Family,
        *,
        decoder: Decoder,
        sink: Sink,
        dead_letters: DeadLetters,
        renew: Renew,
        pool: Executor,
        settings: WorkerSettings,
    ) -> None:
        self._family = family
        self._decoder = decoder
        self._sink = sink
        self._dead_letters = dead_letters
        self._attempts = Attempts(family.name, renew, settings)
        self._pool = pool
        self._log = structlog.get_logger("chimera.ingest").bind(family=family.name)
        self._brake = Brake(settings.reject_ratio, settings.reject_window_seconds, settings.reject_minimum)
        self._braking = False
        metrics.REJECT_BRAKE.labels(family.name).set(0)

    @property
    def trouble(self) -> str | None:
        """Why the family's records don't flow, or too few of them into the table; None while all is well."""
        why = "what has failed is tried again" if self._attempts.retrying else self._brake.why
        return why and f"{self._family.name}: {why}"

    def watch_brake(self) -> None:
        """Tell log and metrics when the brake has gone on or off; to be called every second or so."""
        why = self._brake.why
        if self._braking == bool(why):
            return
        self._braking = bool(why)
        metrics.REJECT_BRAKE.labels(self._family.name).set(self._braking)
        if why:
            self._log.error("too many records are rejected", why=why)
        else:
            self._log.warning("no longer are too many records rejected")

    async def decode(self, batch: MicroBatch) -> Rows:
        """The rows of a micro-batch, and its rejections, which are to be dead letters before the rows are inserted.

        Raises:
            LostPartitionError: the partition has gone to another worker meanwhile; likewise from the others.
            ChimeraError, clickhouse_driver.errors.Error: going on makes no sense; likewise from the others.
        """
        if not batch.replayed:
            metrics.RECORDS_CONSUMED.labels(self._family.name).inc(len(batch))
        rows = None
        try:
            rows = await self._attempts.make(
                batch, partial(self._decoder.decode, batch.values, batch.timestamps), self._pool
            )
        finally:
            self._to_be_decoded(batch).set_result(rows)
        return rows

    async def decoded(self, batch: MicroBatch) -> Rows:
        """What `decode` comes to, for another agent that gets the same micro-batch: it is decoded once.

        Raises:
            LostPartitionError: it has come to nothing; if that isn't for the partition, the worker stops.
        """
        rows = await self._to_be_decoded(batch)
        if rows is None:
            raise LostPartitionError
        return rows

    def _to_be_decoded(self, batch: MicroBatch) -> "asyncio.Future[Rows | None]":
        if batch.decoded is None:
            batch.decoded = asyncio.get_running_loop().create_future()
        return batch.decoded

    async def reject(self, batch: MicroBatch, rejections: Sequence[Rejection]) -> None:
        """Take rejected records to the dead-letter topic, and return when it has them."""
        if rejections:
            await self._attempts.make(
                batch, partial(self._dead_letters.send, batch, rejections), self._dead_letters.pool
            )
            self._report(batch, rejections)

    async def insert(self, batch: MicroBatch, rows: Rows) -> None:
        """Bring the rows of a micro-batch into their table; those that ClickHouse refuses become dead letters."""
        while len(rows):
            try:
                await self._insert(batch, rows)
                break
            except Exception as error:
                if kind_of(error) is not FailureKind.DEAD_LETTER:
                    raise
            rows = await self._attempts.make(
                batch, partial(find_refused, self._sink, self._family.table, rows), self._pool
            )
            # Before the others are inserted: when this is repeated and all rows are taken, their token is known.
            await self.reject(batch, rows.rejections)
        # All of it at the same moment, however long that took: a rejection and its record leave the window together.
        self._brake.count(records=len(batch), rejected=len(batch) - len(rows))

    async def _insert(self, batch: MicroBatch, rows: Rows) -> None:
        began = perf_counter()
        await self._attempts.make(batch, partial(self._insert_now, batch, rows), self._pool)
        metrics.INSERT_SECONDS.labels(self._family.name).observe(perf_counter() - began)
        metrics.ROWS_INSERTED.labels(self._family.name).inc(len(rows))

    def _insert_now(self, batch: MicroBatch, rows: Rows) -> None:
        """Insert, unless this process has slept for so long that the partition may have another owner."""
        check = partial(self._attempts.check_lease, batch)
        check()
        self._sink.insert(self._family.table, rows.columns, batch.token, check)
        if batch.again or self._attempts.repeats(batch):
            self._complete(batch, rows, check)

    def _complete(self, batch: MicroBatch, rows: Rows, check: Callable[[], None]) -> None:
        """Insert what ClickHouse took for repeated and doesn't have; whoever repeats this uses the same tokens."""
        table, columns = self._family.table, rows.columns
        for turn in range(1, _MOST_TURNS + 1):
            missing = self._sink.missing_rows(table, self._family.key, columns)
            if not missing.any():
                return
            self._log.warning("rows are missing after a repeated insert", batch=repr(batch), rows=int(missing.sum()))
            columns = {name: select(column, missing) for name, column in columns.items()}
            check()
            self._sink.insert(table, columns, f"{batch.token}/{turn}", check)
        raise HaltError(f"table {table}: rows are gone as soon as they are inserted; is there a TTL that is over?")

    def _report(self, batch: MicroBatch, rejections: Sequence[Rejection]) -> None:
        """Count every rejected record by its reason, and log the first few: where they are, never what they hold."""
        for reason, count in Counter(rejection.reason for rejection in rejections).items():
            metrics.RECORDS_REJECTED.labels(self._family.name, reason.value).inc(count)
        for position, reason, detail in rejections[:_LOGGED_REJECTIONS]:
            self._log.warning(
                "record rejected",
                topic=batch.topic,
                partition=batch.partition,
                offset=batch.records[position].offset,
                reason=reason.value,
                detail=detail,
            )
        if (more := len(rejections) - _LOGGED_REJECTIONS) > 0:
            self._log.warning("more records rejected in this micro-batch", batch=repr(batch), more=more)
