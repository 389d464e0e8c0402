"""Options of `chimera replay` that say what it reads, and which rows it fills."""

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import click

from pipeline.catalog import Family
from pipeline.cli.times import DayType, time_of
from pipeline.operations.lineage.sources import Order
from pipeline.operations.lineage.spans import Bound
from pipeline.operations.lineage.staging import is_staging

F = TypeVar("F", bound=Callable[..., Any])

_DIGITS = 20  # of a number that is no offset any more
_FIRST_DAY, _LAST_DAY = date(1970, 1, 1), date(2149, 6, 6)  # range of Date: the server takes another day for the first


class BoundType(click.ParamType):
    """An offset, `PARTITION:OFFSET`, or a time in ISO 8601 or so long ago, which is UTC if it has no offset."""

    name = "bound"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Bound:
        """Return the bound."""
        partition, colon, offset = value.partition(":")
        if _is_number(value):
            return Bound(offset=int(value))
        if colon and _is_number(partition) and _is_number(offset):
            return Bound(by_partition={int(partition): int(offset)})
        time = time_of(value)
        if time is None:
            self.fail(
                f"expected an offset, PARTITION:OFFSET, or a time such as 2026-11-24T12:00Z or 1h, got {value!r}",
                param,
                ctx,
            )
        return Bound(time=time)


def _table(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not (value.isascii() and value.isidentifier()):
        raise click.BadParameter(f"expected the name of a table in the configured database, got {value!r}")
    if value is not None and is_staging(value):
        raise click.BadParameter(f"{value!r} is a name of a staging table of --day, which the next replay drops")
    return value


_OPTIONS = (
    click.option(
        "--from",
        "begin",
        type=BoundType(),
        multiple=True,
        metavar="BOUND",
        help="First offset or time to read: OFFSET, PARTITION:OFFSET (may be repeated), or the time of a record in "
        "Kafka, ISO 8601 in UTC if it has no offset, or so long ago, such as 1h.  [default: the beginning of the log]",
    ),
    click.option(
        "--to",
        "end",
        type=BoundType(),
        multiple=True,
        metavar="BOUND",
        help="End, exclusive: the first offset or time that isn't read.  [default: the committed offsets]",
    ),
    click.option(
        "--source-topic",
        metavar="TOPIC",
        help="Read another topic of the same broker, up to its end; the rows get its coordinates.",
    ),
    click.option(
        "--from-file",
        "files",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        multiple=True,
        metavar="PATH",
        help="Read a file: a raw dump of records (JSON Lines, or the same in gzip) or an Avro container file.",
    ),
    click.option(
        "--into",
        callback=_table,
        metavar="TABLE",
        help="Fill this table in the same database instead; it is created if it is missing.",
    ),
    click.option(
        "--day",
        "days",
        type=DayType(_FIRST_DAY, _LAST_DAY),
        multiple=True,
        metavar="YYYY-MM-DD",
        help="Make this day of `ts` anew from the log and swap it in, in place of filling; may be repeated.",
    ),
    click.option(
        "--keep-unknown",
        is_flag=True,
        help="With --day: keep rows that have no coordinates of this topic; without it, such a day is refused.",
    ),
    click.option(
        "--allow-removal",
        is_flag=True,
        help="With --day: remove rows whose records make no row of that day any more; without it, they are refused.",
    ),
    click.option(
        "--despite-unknown",
        is_flag=True,
        help="Fill also days with rows that have no coordinates of this topic; they may be the same rows.",
    ),
)


def reading(command: F) -> F:
    """Add the options that make an order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def order_of(
    family: Family,
    *,
    begin: Sequence[Bound],
    end: Sequence[Bound],
    source_topic: str | None,
    files: Sequence[Path],
    into: str | None,
    days: Sequence[date],
    keep_unknown: bool,
    allow_removal: bool,
    despite_unknown: bool,
) -> Order:
    """Return the order that the options make.

    Raises:
        click.UsageError: they contradict each other.
    """
    if days and (into or despite_unknown):
        raise click.UsageError("expected --day without --into and --despite-unknown: it makes days of the table anew")
    if days and end:
        raise click.UsageError("expected --day without --to: a day is made of all records below the committed offsets")
    if not days and (keep_unknown or allow_removal):
        raise click.UsageError("expected --keep-unknown and --allow-removal only with --day")
    _check_target(family, into)
    _check_source(source_topic, files, bounded=bool(begin or end), rewrite=bool(days))
    return Order(
        family,
        one_bound(begin, "--from"),
        one_bound(end, "--to"),
        into,
        despite_unknown,
        tuple(sorted(set(days))),
        keep_unknown,
        allow_removal,
        source_topic,
        files[0] if files else None,
    )


def _check_target(family: Family, into: str | None) -> None:
    if into == family.table:  # session_stats would stay as it is
        raise click.UsageError(f"expected --into with another table than {into}: without it, {into} is filled")


def _check_source(source_topic: str | None, files: Sequence[Path], *, bounded: bool, rewrite: bool) -> None:
    if source_topic and files:
        raise click.UsageError("expected --source-topic or --from-file, not both")
    if rewrite and (source_topic or files):
        raise click.UsageError("expected --day without --source-topic and --from-file: a day is made of its own topic")
    if len(files) > 1:
        raise click.UsageError("expected --from-file once: run the command once for each file")
    if files and bounded:
        raise click.UsageError("expected --from-file without --from and --to: a file is read as a whole")


def one_bound(bounds: Sequence[Bound], option: str) -> Bound:
    """Return one bound for all that were given.

    Raises:
        click.UsageError: an option that bounds all partitions is given beside another one.
    """
    if len(bounds) > 1 and any(not bound.by_partition for bound in bounds):
        raise click.UsageError(f"expected {option} once, or once for each partition as PARTITION:OFFSET")
    if len(bounds) == 1:
        return bounds[0]
    numbers = [number for bound in bounds for number in bound.by_partition]
    if twice := sorted({number for number in numbers if numbers.count(number) > 1}):
        raise click.UsageError(f"expected {option} once for each partition, got several for partition {twice[0]}")
    return Bound(by_partition={number: at for bound in bounds for number, at in bound.by_partition.items()})


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < _DIGITS
