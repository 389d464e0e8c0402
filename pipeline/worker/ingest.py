"""The steps of a micro-batch, in their order: decode, sift, reject, insert, acknowledge.

    place taken ─► decode ─► sift ─► reject ─► insert ─► place free ─► acknowledge
                                     (place lent to others meanwhile)

- Decode: records become rows and rejections. The rollup's agent gets the same rows.
- Sift: if an earlier owner committed the range, the rows that it has stored are left out. Their records stay rows,
  whatever the verdicts are now. Rows of days that the table's TTL has expired become rejections.
- Reject: dead letters are sent, and the broker acknowledges them, before any row is inserted.
- Insert: rows are stored with the micro-batch's token. If ClickHouse refuses some for their data
  (`pipeline.clickhouse.refusals`), these are rejected first, and the others inserted then.
- Acknowledge: the offsets may be committed. A micro-batch whose step fails is never acknowledged.

`pipeline.retry` repeats a step that fails for the time being: same block, same token, without limit.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

import structlog

from pipeline.catalog import Family
from pipeline.clickhouse.block_budget import BlockBudget
from pipeline.clickhouse.client import kind_of
from pipeline.clickhouse.refusals import find_refused, refused_as_a_block
from pipeline.clickhouse.repeated_insert import RepeatedInsert
from pipeline.clickhouse.retrying import retry_of
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column, Mask, Rejection, Rows
from pipeline.config import WorkerSettings
from pipeline.decode.decoder import Decoder
from pipeline.dlq.writer import DeadLetters
from pipeline.errors import FailureKind
from pipeline.metrics import Stage, timed
from pipeline.retry import LostPartitionError, Renew, coordinates
from pipeline.transport.micro_batch import MicroBatch
from pipeline.troubles import Troubles
from pipeline.worker.done_before import left_to_do, located, without_expired
from pipeline.worker.family_metrics import FamilyMetrics
from pipeline.worker.places import Places
from pipeline.worker.reject_rate import RejectRate

_LOGGED_REJECTIONS = 10  # of one micro-batch; all of them are counted


class Ingest:
    """Brings the micro-batches of one family into their table.

    Args:
        family: family of the micro-batches.
        decoder: decoder of that family.
        sink: server and database of the table.
        dead_letters: writer to the family's dead-letter topic.
        renew: commits the range of a micro-batch again; gives False if another worker owns the partition.
        pool: threads to decode and insert in.
        places: limit on the micro-batches that are processed at once, of all families.
        settings: lease, pauses between attempts, limit of the reject rate.
        family_metrics: counts the micro-batches.
        troubles: told of failed steps, and of a reject rate above its limit.
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
        places: Places,
        settings: WorkerSettings,
        budget: BlockBudget | None = None,
        family_metrics: FamilyMetrics | None = None,
        troubles: Troubles | None = None,
    ) -> None:
        self._family = family
        self._decoder = decoder
        self._metrics = family_metrics or FamilyMetrics(family.name)
        self._sink = sink
        self._dead_letters = dead_letters
        self._troubles = troubles or Troubles()
        self._retry = retry_of(family.name, renew, settings, sink.settings, self._troubles)
        self._pool = pool
        self._places = places
        self._budget = budget
        self._log = structlog.get_logger("chimera.ingest").bind(family=family.name)
        self._reject_rate = RejectRate(settings.reject_ratio, settings.reject_window_seconds, settings.reject_minimum)

    def watch_reject_rate(self) -> None:
        """Report that the reject rate has passed its limit, in either direction; call it every second or so."""
        excess = self._reject_rate.excess
        self._metrics.reject_brake.set(excess is not None)
        part, rate = self._family.name, "reject rate"
        if excess:
            self._troubles.report(part, excess, step=rate)
        else:
            self._troubles.end(part, step=rate)

    async def process(self, batch: MicroBatch, begun: asyncio.Event | None = None) -> None:
        """Take a micro-batch through all steps; leave it if another worker owns its partition.

        Args:
            batch: the micro-batch.
            begun: set when the micro-batch has its place.

        Raises:
            ChimeraError, clickhouse_driver.errors.Error: the worker has to stop.
        """
        self._metrics.in_flight.inc()
        try:
            async with self._places.take(self._family.name) as place:
                if begun is not None:
                    begun.set()
                rows = await self._sift(batch, await self._decode(batch))
                if rows.rejections:
                    async with place.lend():  # a dead-letter topic that can't be written delays no other family
                        await self._reject(batch, rows.rejections)
                await self._insert(batch, rows)
            batch.ack()
            self._metrics.done.inc()
        except LostPartitionError:
            self._log.info("micro-batch left to the partition's new owner", **coordinates(batch))
        finally:
            self._metrics.in_flight.dec()
            batch.decoded.abandon()

    async def decode_replayed(self, batch: MicroBatch) -> Rows:
        """Decode a micro-batch that is stored already and delivered again for the rollup alone.

        Raises:
            LostPartitionError: another worker owns the partition.
            ChimeraError: the worker has to stop.
        """
        async with self._places.take(f"{self._family.name} replayed"):
            return await self._run_decoder(batch)

    async def _decode(self, batch: MicroBatch) -> Rows:
        self._metrics.delivered(batch)
        return await batch.decoded.own(self._run_decoder(batch))

    async def _run_decoder(self, batch: MicroBatch) -> Rows:
        def decode() -> Rows:
            return self._decoder.decode_slices(((each.values, each.timestamps) for each in batch.slices()), len(batch))

        return await self._retry.run(batch, partial(self._metrics.decode, decode), self._pool)

    async def _sift(self, batch: MicroBatch, rows: Rows) -> Rows:
        """Leave out what an earlier owner of the range has stored; reject rows that the table's TTL would drop."""
        sift = partial(without_expired, self._sink, self._family, rows)
        if batch.again:
            sift = partial(left_to_do, self._sink, self._dead_letters, self._family, batch, rows)
        return await self._retry.run(batch, sift, self._pool)

    async def _reject(self, batch: MicroBatch, rejections: Sequence[Rejection]) -> None:
        """Send rejected records to the dead-letter topic; return when the broker has acknowledged them."""
        if rejections:
            with timed(Stage.DEAD_LETTERS, self._family.name):
                await self._retry.run(
                    batch, partial(self._dead_letters.send, batch, rejections), self._dead_letters.pool
                )
            self._report(batch, rejections)

    async def _insert(self, batch: MicroBatch, rows: Rows) -> None:
        """Insert the rows of a micro-batch; rows that ClickHouse refuses become dead letters first."""
        table, found, rejected = self._family.table, True, len(rows.rejections)
        look_after = batch.again
        while len(rows):
            try:
                await self._insert_block(batch, rows, look_after=look_after)
                break
            except Exception as error:
                if kind_of(error) is not FailureKind.DEAD_LETTER:
                    raise
                if not found:
                    raise refused_as_a_block(table) from error
            rows = await self._retry.run(batch, partial(self._not_stored, batch, rows), self._pool)
            if not len(rows):
                break
            rows = await find_refused(partial(self._probe, batch), table, rows)
            look_after = True  # the token may be known without its rows, from the attempts before the refusal
            found = bool(rows.rejections)  # if not, what refused them may be gone by now, such as a constraint
            # Before the other rows, for the reason given at the top of this module.
            await self._reject(batch, rows.rejections)
            rejected += len(rows.rejections)
        # Records and rejections are counted at the same moment, however long the steps took, so that they also leave
        # the window together.
        self._reject_rate.count(records=len(batch), rejected=rejected)

    def _not_stored(self, batch: MicroBatch, rows: Rows) -> Rows:
        """Leave out rows that an attempt before the refusal has stored: these stay rows."""
        missing = self._sink.missing_rows(self._family.table, self._family.key, located(batch, rows), tried=False)
        return replace(rows.where(missing), rejections=())

    async def _probe(self, batch: MicroBatch, columns: Mapping[str, Column]) -> int | None:
        """Return the error code with which the server refuses rows; each probe is a step that is tried again."""
        return await self._retry.run(batch, partial(self._sink.refusal_code, self._family.table, columns), self._pool)

    async def _insert_block(self, batch: MicroBatch, rows: Rows, *, look_after: bool) -> None:
        """Insert while the lease lasts; of an insert that may be a repetition, the rows that are missing."""
        insert = RepeatedInsert(
            self._sink,
            self._family.table,
            located(batch, rows),
            batch.token,
            find=partial(self._find_missing, batch),
            check=partial(self._retry.check_lease, batch),
            look_first=False,  # `_sift` has looked for the rows of an earlier owner
            look_after=look_after,
            pay=self._budget.bill(self._family.table, batch.owner).pay if self._budget else lambda _: None,
        )
        with timed(Stage.INSERT, self._family.name):
            await self._retry.run(batch, insert.attempt, self._pool)
        self._metrics.stored(rows)

    def _find_missing(self, batch: MicroBatch, columns: Mapping[str, Column], *, tried: bool) -> Mask:
        missing = self._sink.missing_rows(self._family.table, self._family.key, columns, tried=tried)
        if tried and missing.any():
            self._log.warning("rows are missing after a repeated insert", **coordinates(batch), rows=int(missing.sum()))
        return missing

    def _report(self, batch: MicroBatch, rejections: Sequence[Rejection]) -> None:
        """Count rejected records by reason, and log the coordinates of the first few, without their content."""
        self._metrics.rejected(rejections)
        for position, reason, detail in rejections[:_LOGGED_REJECTIONS]:
            self._log.warning(
                "record rejected",
                topic=batch.topic,
                partition=batch.partition,
                offset=int(batch.offsets[position]),
                reason=reason.value,
                detail=detail,
            )
        if (more := len(rejections) - _LOGGED_REJECTIONS) > 0:
            self._log.warning("more records rejected in this micro-batch", **coordinates(batch), more=more)
