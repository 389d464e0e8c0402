"""The way of a micro-batch: decoded, validated, inserted, acknowledged, whatever fails on the way.

What a failed step leads to is decided by its kind (`pipeline.errors.FailureKind`): the same block with the same token
again, for as long as it takes; a halt, with nothing acknowledged; or, when ClickHouse refuses the data, halving the
block until the guilty rows stand alone and are rejected. What is rejected goes to the dead-letter topic.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from time import monotonic, perf_counter
from typing import TypeVar

import structlog

from pipeline import metrics
from pipeline.backoff import pauses
from pipeline.batches import MicroBatch
from pipeline.clickhouse import describe, kind_of
from pipeline.columns import Coded, Rejection, Rows
from pipeline.config import WorkerSettings
from pipeline.dead_letters import DeadLetters
from pipeline.decode import Decoder
from pipeline.errors import FailureKind, Reason
from pipeline.families import Family
from pipeline.sink import Sink

T = TypeVar("T")
Renew = Callable[[MicroBatch], Awaitable[bool]]

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
        self._renew = renew
        self._pool = pool
        self._lease_seconds = settings.lease_seconds
        self._backoff = (settings.retry_backoff_seconds, settings.retry_backoff_max_seconds)
        self._log = structlog.get_logger("chimera.ingest").bind(family=family.name)
        self._retrying: set[MicroBatch] = set()

    @property
    def retrying(self) -> bool:
        """Whether anything waits for something that has failed."""
        return bool(self._retrying)

    async def store(self, batch: MicroBatch) -> None:
        """See a micro-batch through, and acknowledge it when all its records are stored or dead letters.

        Returns without acknowledging it when the partition has gone to another worker meanwhile.

        Raises:
            ChimeraError, clickhouse_driver.errors.Error: going on makes no sense; nothing was acknowledged.
        """
        metrics.RECORDS_CONSUMED.labels(self._family.name).inc(len(batch))
        try:
            rows = await self._attempt(batch, partial(self._decoder.decode, batch.values))
            rejections = [*rows.rejections, *await self._insert(batch, rows, batch.token)]
            if rejections:
                await self._attempt(batch, partial(self._dead_letters.send, batch, rejections))
        except _LostPartitionError:
            self._log.info("micro-batch left to the partition's new owner", batch=repr(batch))
            return
        self._report(batch, rejections)
        batch.ack()

    async def _insert(self, batch: MicroBatch, rows: Rows, token: str) -> list[Rejection]:
        """Insert the rows; those that ClickHouse refuses for their data come back as rejections."""
        if not len(rows):
            return []
        began = perf_counter()
        try:
            await self._attempt(batch, partial(self._insert_now, batch, rows, token))
        except Exception as error:
            if kind_of(error) is not FailureKind.DEAD_LETTER:
                raise
            if len(rows) == 1:
                detail = f"error code {getattr(error, 'code', None)}"  # its message may repeat the data
                return [Rejection(int(rows.positions[0]), Reason.REFUSED_BY_CLICKHOUSE, detail)]
            half = len(rows) // 2
            front, back = _part(rows, slice(half)), _part(rows, slice(half, None))
            return [
                *await self._insert(batch, front, f"{token}/0"),
                *await self._insert(batch, back, f"{token}/1"),
            ]
        metrics.INSERT_SECONDS.labels(self._family.name).observe(perf_counter() - began)
        metrics.ROWS_INSERTED.labels(self._family.name).inc(len(rows))
        return []

    def _insert_now(self, batch: MicroBatch, rows: Rows, token: str) -> None:
        """Insert, unless this process has slept for so long that the partition may have another owner."""
        if monotonic() - batch.recorded_at > self._lease_seconds:
            raise _LeaseOverError
        self._sink.insert(self._family.table, rows.columns, token)

    async def _attempt(self, batch: MicroBatch, work: Callable[[], T]) -> T:
        """Do it in a thread, again and again while that may help; never for a micro-batch that isn't ours any more."""
        try:
            for attempt, pause in enumerate(pauses(*self._backoff), start=1):
                if not batch.live:
                    raise _LostPartitionError
                try:
                    return await asyncio.get_running_loop().run_in_executor(self._pool, work)
                except _LeaseOverError:
                    if not await self._renew(batch):
                        raise _LostPartitionError from None
                    continue
                except Exception as error:
                    if kind_of(error) is not FailureKind.RETRY:
                        raise
                    self._say_failed(batch, error, attempt, pause)
                await asyncio.sleep(pause)
            raise AssertionError("pauses have no end")
        finally:
            self._retrying.discard(batch)
            metrics.RETRYING.labels(self._family.name).set(len(self._retrying))

    def _say_failed(self, batch: MicroBatch, error: Exception, attempt: int, pause: float) -> None:
        self._retrying.add(batch)
        metrics.RETRIES.labels(self._family.name).inc()
        metrics.RETRYING.labels(self._family.name).set(len(self._retrying))
        self._log.warning(
            "failed, trying again",
            batch=repr(batch),
            error=describe(error),
            attempt=attempt,
            pause_seconds=round(pause, 2),
        )

    def _report(self, batch: MicroBatch, rejections: list[Rejection]) -> None:
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


def _part(rows: Rows, part: slice) -> Rows:
    columns = {
        name: Coded(column.codes[part], column.values) if isinstance(column, Coded) else column[part]
        for name, column in rows.columns.items()
    }
    return Rows(columns, rows.positions[part], ())


class _LeaseOverError(Exception):
    """The range was recorded too long ago."""


class _LostPartitionError(Exception):
    """The partition has gone to another worker."""
