"""The part of a micro-batch that is left to do: not what is stored already, nor what the table's TTL would drop."""

from dataclasses import replace

import numpy as np

from pipeline.catalog import Family
from pipeline.clickhouse.coordinates import Source
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column, Rejection, Rows
from pipeline.dlq.writer import DeadLetters
from pipeline.errors import Reason
from pipeline.transport.micro_batch import MicroBatch

_EXPIRED = "ts: its day is past the TTL of table {table}"


def located(batch: MicroBatch, rows: Rows) -> dict[str, Column]:
    """Return the columns of a micro-batch's rows with those of their records' coordinates."""
    return {**rows.columns, **_source(batch).columns(batch.offsets[rows.positions])}


def left_to_do(sink: Sink, dead_letters: DeadLetters, family: Family, batch: MicroBatch, rows: Rows) -> Rows:
    """Return the rows and rejections of a repeated micro-batch whose records aren't done yet.

    A record whose row is stored isn't rejected any more, whatever its verdict is now, and a valid one that is a dead
    letter doesn't become a row: no record is both. Dead letters are read if only some of the rows are stored, as after
    another verdict; a part that was lost lacks all of its rows.

    Raises:
        HaltError: a row policy hides rows of the table.
        UnavailableError: the broker doesn't answer.
        clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    if len(rows):
        missing = sink.missing_rows(family.table, family.key, located(batch, rows), tried=False)
        some_stored, rows = not missing.all(), rows.where(missing)
        if some_stored and len(rows):
            rows = rows.where(~np.isin(rows.positions, list(dead_letters.written_before(batch))))
    rows = without_expired(sink, family, rows)
    if not rows.rejections:
        return rows
    rejected = batch.offsets[[rejection.position for rejection in rows.rejections]]
    stored = sink.stored_offsets(family.table, _source(batch), rejected, rows.rejected_times)
    kept = zip(rows.rejections, np.isin(rejected, stored).tolist(), strict=True)
    return replace(rows, rejections=tuple(rejection for rejection, is_stored in kept if not is_stored))


def without_expired(sink: Sink, family: Family, rows: Rows) -> Rows:
    """Reject the rows of days that the table's TTL has expired.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    if not len(rows):
        return rows
    times = np.asarray(rows.columns["ts"])
    expired = sink.in_expired_days(family.table, times)
    if not expired.any():
        return rows
    detail = _EXPIRED.format(table=family.table)
    rejections = [Rejection(position, Reason.EXPIRED, detail) for position in rows.positions[expired].tolist()]
    return replace(rows.where(~expired), rejections=tuple(sorted([*rows.rejections, *rejections])))


def _source(batch: MicroBatch) -> Source:
    return Source.of(batch.owner.topic_id, batch.partition)
