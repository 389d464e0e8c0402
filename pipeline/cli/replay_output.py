"""Output of `chimera replay`: plan, progress and result."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.cli.rates import rate_of, rate_text
from pipeline.cli.terminal import terminal
from pipeline.cli.verify_output import format_hour
from pipeline.operations.lineage.filler import ReplayCounts
from pipeline.operations.lineage.follow import Followed
from pipeline.operations.lineage.plan import ReplayPlan
from pipeline.operations.lineage.replay import Result
from pipeline.operations.lineage.rewrite import Rewritten

_LISTED = 20
_LINE_SECONDS = 10.0
_DAY_SECONDS = 86_400


def facts_of_plan(plan: ReplayPlan, sampled: Result) -> dict[str, Any]:
    """Return a plan and its sample for JSON."""
    rows, seconds = _estimate(plan, sampled)
    return {
        "table": plan.target.family.table,
        **_source(plan),
        "partitions": [
            {
                "partition": span.source.partition,
                "from": span.offsets.start,
                "to": span.offsets.stop,
                "stored": span.stored,
                "to_read": sum(map(len, span.gaps)),
                "deleted": span.deleted,
                "ahead": span.ahead,
            }
            for span in plan.spans
        ],
        "to_read": plan.offsets,
        "sample": _facts(sampled.counts),
        "estimated_rows": rows,
        "estimated_seconds": round(seconds, 1),
        "unknown_days": {some.date: some.without + some.foreign for some in plan.others},
    }


def facts_of_result(plan: ReplayPlan, done: Rewritten, followed: Sequence[Followed] = ()) -> dict[str, Any]:
    """Return a result for JSON."""
    result = done.made
    rate = rate_of(result.counts.records, result.seconds)
    rewrite = {
        "carried": done.carried,
        "removed": done.removed,
        "swapped": done.swapped,
        "stall_ms": round(done.stall_ms, 1),
        "filled": done.filled.counts.inserted,
    }
    return {
        "table": plan.target.family.table,
        **_source(plan),
        **(rewrite if plan.dates else {}),
        **_facts(result.counts),
        "seconds": round(result.seconds, 3),
        "records_per_second": None if rate is None else round(rate),
        "stopped": result.stopped,
        "deleted": [
            {"partition": gone.partition, "from": gone.first, "to": gone.next_offset} for gone in result.deleted
        ],
        "session_stats": {
            str(each.day): {
                "closed_hours": [format_hour(hour) for hour in each.closed],
                "open_hours": [format_hour(hour) for hour in each.open],
                "left_hours": [format_hour(hour) for hour in each.left],
                "rows": each.rows,
            }
            for each in followed
        },
    }


def _source(plan: ReplayPlan) -> dict[str, Any]:
    return {"source": plan.source.name, "topic_id": str(plan.source.topic_id)}


def _facts(counts: ReplayCounts) -> dict[str, Any]:
    return {
        "records": counts.records,
        "present": counts.present,
        "inserted": counts.inserted,
        "dead_letters": counts.lettered,
        "expired": counts.expired,
        "withheld": counts.withheld,
        "rejected": {reason.value: count for reason, count in sorted(counts.rejected.items())},
        "days": {_date(day): count for day, count in sorted(counts.days.items())},
    }


def print_plan(plan: ReplayPlan, sampled: Result) -> None:
    """Print the offsets of each partition, and the rows to come by the sample."""
    click.echo(f"Source: {plan.source.name}, topic id {plan.source.topic_id}")
    for span in plan.spans:
        number = span.source.partition
        if span.deleted:
            click.echo(f"Partition {number}: retention has deleted {span.deleted:,} of the offsets asked for.")
        first, last = span.offsets.start, span.offsets.stop
        stored = "" if plan.dates else f"{span.stored:,} with a row, "
        click.echo(
            f"Partition {number}: offsets {first:,} to {last:,} (exclusive), {stored}"
            f"{sum(map(len, span.gaps)):,} to read"
        )
        if span.ahead:
            click.echo(
                f"Partition {number}: {span.ahead:,} offsets from {span.offsets.stop:,} on are left out: they are the "
                "workers', which haven't committed them yet"
            )
    if plan.barrier:
        click.echo(
            f"A killed replay has left a barrier, so inserts into {plan.target.family.table} are held up; --execute "
            "removes it"
        )
    _print_unknown(plan)
    _print_sample(plan, sampled)
    click.echo("Nothing was changed; add --execute to insert the rows.", err=True)


def _print_sample(plan: ReplayPlan, sampled: Result) -> None:
    counts = sampled.counts
    if counts.records:
        rows, seconds = _estimate(plan, sampled)
        what = "are of these days" if plan.dates else "lack a row"
        click.echo(f"Sample: {counts.records:,} records, of which {counts.inserted:,} {what}{_rest(counts)}.")
        _print_rejected(counts)
        if counts.days:
            click.echo(f"Days of these rows: {_days(counts)}.")
        click.echo(f"To come: about {rows:,} rows into {plan.target.family.table}, in about {_duration(seconds)}.")
    else:
        click.echo("Nothing to fill.")
    if plan.dates:
        click.echo(
            "Rows whose records make no row of these days any more are known when the rows are made; --execute changes "
            "nothing then, unless --allow-removal is given."
        )


def print_result(plan: ReplayPlan, done: Rewritten, followed: Sequence[Followed] = ()) -> None:
    """Print counts, rejected records, and what was left out."""
    result, counts = done.made, done.made.counts
    if plan.barrier:
        click.echo(f"Removed a barrier that a killed replay had left on {plan.target.family.table}: inserts go on.")
    lost = "rows that were there are kept as they were" if plan.dates else "their rows are missing for good"
    for gone in result.deleted:
        click.echo(
            f"Partition {gone.partition}: retention deleted offsets {gone.first} to {gone.next_offset - 1} before they "
            f"were read; {lost}"
        )
    _print_rejected(counts)
    if plan.dates:
        _print_rewrite(plan, done)
    else:
        _print_fill(plan, result)
    for each in followed:
        rest = ", they are the rollup's" if each.open else ""
        if not plan.source.own and each.open:
            rest += (
                f", which doesn't know the rows of this source: when they are closed, run `chimera rollup repair --day "
                f"{each.day} --execute`"
            )
        click.echo(
            f"session_stats: {each.day}: closed hours touched: {_clocks(each.closed)}, {each.rows:,} rows brought in "
            f"line; open hours: {_clocks(each.open)}{rest}"
        )
    print_left_hours(followed)


def print_left_hours(followed: Iterable[Followed]) -> None:
    """Print the hours whose rows stay as they are, because events of theirs are gone."""
    for each in followed:
        if each.left:
            click.echo(
                f"session_stats: {each.day}: the rows of {_clocks(each.left)} stay, because they count events that "
                f"ui_events lacks: fill the rest, or see `chimera rollup repair --day {each.day}`, which computes them "
                "from the events that are there"
            )


def _clocks(hours: Sequence[int]) -> str:
    """Return the begins of hours of one day, as clocks show them."""
    return ", ".join(f"{hour % 24:02}:00" for hour in hours) + " UTC" if hours else "none"


def print_left_days(days: Iterable[date], why: str) -> None:
    """Print how session_stats is brought in line for these days."""
    for day in days:
        click.echo(
            f"session_stats isn't brought in line with {day}{why and f', because: {why}'}; run `chimera rollup repair "
            f"--day {day} --execute`",
            err=True,
        )


def _print_fill(plan: ReplayPlan, result: Result) -> None:
    counts = result.counts
    _print_unknown(plan)
    click.echo(
        f"{counts.inserted:,} rows inserted into {plan.target.family.table}, {counts.present:,} were there already"
        f"{_rest(counts)}: {counts.records:,} records in {_duration(result.seconds)}"
        f"{rate_text(counts.records, result.seconds, 'records')}"
    )
    if counts.days:
        click.echo(f"Days: {_days(counts)}")
    if result.stopped:
        click.echo("Stopped before its end; run the same command again to go on.", err=True)


def _print_rewrite(plan: ReplayPlan, done: Rewritten) -> None:
    days, result = ", ".join(map(str, plan.dates)), done.made
    if not done.swapped:
        click.echo("Stopped before the swap; nothing was changed.", err=True)
        return
    rate = rate_text(result.counts.records, result.seconds, "records")
    click.echo(
        f"{days} of {plan.target.family.table}: {result.counts.inserted:,} rows made anew{_rest(result.counts)}, "
        f"{done.carried:,} kept as they were, {done.removed:,} removed: {result.counts.records:,} records in "
        f"{_duration(result.seconds)}{rate}; inserts waited {done.stall_ms:,.0f} ms; "
        f"{done.filled.counts.inserted:,} rows filled in afterwards"
    )
    if done.filled.counts.withheld:
        click.echo(
            f"{done.filled.counts.withheld:,} rows of other days with rows of unknown origin weren't filled in: they "
            "may be of the same records; see --despite-unknown"
        )


def _print_unknown(plan: ReplayPlan) -> None:
    others = "another topic or a file" if plan.source.own else "other sources, such as the family's topic,"
    for some in plan.others:
        if plan.dates:
            what = "is made anew only with --keep-unknown"
        elif some.day in plan.target.withheld_days:
            what = "is left as it is; see --despite-unknown"
        else:
            what = "is filled all the same"
        click.echo(
            f"{some.date}: {some.without:,} rows without coordinates and {some.foreign:,} of {others} may be of "
            f"the same events; the day {what}"
        )


def _print_rejected(counts: ReplayCounts) -> None:
    for rejected in counts.listed[:_LISTED]:
        click.echo(
            f"Rejected: partition {rejected.partition}, offset {rejected.offset}: {rejected.reason} ({rejected.detail})"
        )
    if (more := counts.rejected.total() - _LISTED) > 0:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.rejected.items()))
        click.echo(f"Rejected: {more:,} more; by reason: {reasons}")


def _rest(counts: ReplayCounts) -> str:
    parts = (
        (counts.rejected.total(), "rejected"),
        (counts.lettered, "dead letters, left to `chimera dlq`"),
        (counts.expired, "expired by the table's TTL"),
        (counts.withheld, "of days with rows of unknown origin, left out"),
    )
    return "".join(f", {count:,} {what}" for count, what in parts if count)


def _estimate(plan: ReplayPlan, sampled: Result) -> tuple[int, float]:
    """Return about the number of rows to come, and about the seconds that it takes."""
    share = plan.offsets / max(sampled.counts.passed, 1)
    return round(sampled.counts.inserted * share), sampled.seconds * share


def _days(counts: ReplayCounts) -> str:
    return ", ".join(f"{_date(day)} ({count:,})" for day, count in sorted(counts.days.items()))


def _date(day: int) -> str:
    return f"{datetime.fromtimestamp(day * _DAY_SECONDS, UTC):%Y-%m-%d}"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


@contextmanager
def progress_of(plan: ReplayPlan) -> Iterator[Callable[[Result], None]]:
    """Show offsets, rows, rows/s and remaining time: a bar on a terminal, elsewhere a line every ten seconds."""
    console = terminal(stderr=True)
    columns = (
        TextColumn("Filling"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    began = printed = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=plan.offsets)

        def report(result: Result) -> None:
            nonlocal printed
            rate = rate_text(result.counts.records, result.seconds, "records")
            text = f"{result.counts.inserted:,} rows inserted{rate}"
            total = max(plan.offsets, result.counts.passed)  # a rewrite also reads what is committed meanwhile
            progress.update(task, completed=result.counts.passed, total=total, description=text)
            now = time.monotonic()
            if not console.is_terminal and now - printed >= _LINE_SECONDS:
                printed, done = now, max(result.counts.passed, 1)
                left = (now - began) / done * (total - done)
                click.echo(f"{done:,} of {total:,} offsets, {text}, {_duration(left)} left", err=True)

        yield report
