"""`chimera produce`: publish events from a file, or sample events."""

import json
import math
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import IO, Any, NoReturn

import click
from click.core import ParameterSource

from pipeline.catalog import Catalog, Family, load_catalog
from pipeline.cli.own_families import own_samples
from pipeline.cli.progress import tracked
from pipeline.cli.rates import rate_text
from pipeline.config import Settings, load_settings
from pipeline.kafka.newest import newest_timestamp
from pipeline.producer.encode import Encoder, InvalidEventError
from pipeline.producer.producer import Producer
from pipeline.producer.sample import sample

_SHOWN_LINES = 20
_MAX_HOURS = 87_600  # ten years: a sample must begin well after 1970
_SHORTEST_HOURS = 1 / 3600

Events = Iterable[tuple[str, Mapping[str, Any]]]
Send = Callable[[str, Mapping[str, Any]], object]


@click.command()
@click.argument("family", required=False)
@click.option(
    "--file", type=click.File("rb"), help="File with events of FAMILY, one JSON object per line; - is standard input."
)
@click.option("--sample", "count", type=click.IntRange(min=1), metavar="N", help="Publish N sample events.")
@click.option("--families", default="", metavar="A,B", help="Families of the sample events.  [default: all]")
@click.option("--seed", default=1, show_default=True, help="Random seed; the same seed gives the same sample events.")
@click.option(
    "--hours",
    type=click.FloatRange(min=0, min_open=True, max=_MAX_HOURS),
    default=24.0,
    show_default=True,
    help="Time span of the sample events in hours, up to now; they begin after the newest record of ui_events.",
)
@click.option("--skip-bad", is_flag=True, help="Skip the bad lines of the file and publish the others.")
@click.option("--dry-run", is_flag=True, help="Check the events without publishing them; needs no broker.")
def produce(
    *,
    family: str | None,
    file: IO[bytes] | None,
    count: int | None,
    families: str,
    seed: int,
    hours: float,
    skip_bad: bool,
    dry_run: bool,
) -> None:
    """Publish events from a file, or sample events.

    Each event goes to the topic of its family: see docs/producing.md. A file is checked to its end before its first
    event is sent. A bad line stops everything, unless --skip-bad is given; bad lines are listed on standard error.

    \b
    Examples:
      chimera produce ui_events --file examples/ui_events.jsonl
      zcat events.jsonl.gz | chimera produce llm_events --file - --skip-bad
      chimera produce --sample 200000
      chimera produce --sample 1000 --families ui_events,episodes --seed 7 --hours 1 --dry-run

    \b
    Exit codes:
      0   the broker has stored all events
      1   a line is bad, or the broker refused an event
      2   the options are wrong
      69  the broker or the schema registry doesn't answer
      70  the registry refused the login or the schema
      78  a setting, topics.yaml or a schema is wrong, or the family is unknown
    """
    if count is not None and file is None and family is None:
        _refuse("skip_bad", beside="--sample")
        _publish_sample(count, families.split(",") if _given("families") else [], seed, hours, dry_run=dry_run)
    elif count is None and file is not None and family is not None:
        _refuse("families", "hours", "seed", beside="--file")
        _publish_file(family, file, skip_bad=skip_bad, dry_run=dry_run)
    else:
        raise click.UsageError("expected either FAMILY with --file, or --sample")


def _given(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE


def _refuse(*options: str, beside: str) -> None:
    """Refuse options that would have no effect."""
    for option in filter(_given, options):
        raise click.UsageError(f"--{option.replace('_', '-')} can't be used with {beside}")


def _publish_sample(count: int, names: list[str], seed: int, hours: float, *, dry_run: bool) -> None:
    names = [name.strip() for name in names]
    if not all(names):
        raise click.UsageError("--families: expected family names separated by commas")
    if math.isnan(hours):
        raise click.UsageError("--hours: expected a number")
    settings = load_settings()
    catalog = load_catalog(settings)
    wanted = [catalog.family(name).name for name in names]
    start, span_hours = _span(settings, catalog, wanted, hours, dry_run=dry_run)
    own = own_samples(settings, catalog)
    events = sample(count, seed=seed, start=start, hours=hours, families=wanted, told_in_hours=span_hours, own=own)
    _publish(settings, catalog, events, count, dry_run=dry_run)


def _span(
    settings: Settings, catalog: Catalog, wanted: list[str], hours: float, *, dry_run: bool
) -> tuple[datetime, float]:
    """Return the beginning and the hours of the sample: up to now, and after all events that are there.

    Earlier ui_events would be late, and in no row of session_stats: behind the newest record, or in an hour that the
    clock may have closed.
    """
    now = datetime.now(UTC)
    start = now - timedelta(hours=hours)
    rollup = catalog.rollup
    if not dry_run and rollup and (not wanted or rollup.source.name in wanted):
        newest_ms = newest_timestamp(settings.kafka, rollup.source.topic.name)
        if newest_ms is not None:
            closed = (now - timedelta(seconds=settings.rollup.grace_seconds)).replace(minute=0, second=0, microsecond=0)
            start = max(start, closed, datetime.fromtimestamp(newest_ms / 1000, UTC) + timedelta(milliseconds=1))
    return start, max((now - start) / timedelta(hours=1), _SHORTEST_HOURS)


def _publish_file(name: str, file: IO[bytes], *, skip_bad: bool, dry_run: bool) -> None:
    settings = load_settings()
    catalog = load_catalog(settings)
    family = catalog.family(name)
    file = _seekable(file)
    good, bad = _check(family, file)
    for number, problem in list(bad.items())[:_SHOWN_LINES]:
        click.echo(f"line {number}: {problem}", err=True)
    if len(bad) > _SHOWN_LINES:
        click.echo(f"... and {len(bad) - _SHOWN_LINES:,} more", err=True)
    if bad and not skip_bad:
        raise InvalidEventError(f"{len(bad):,} of {good + len(bad):,} lines are bad: nothing was published")
    file.seek(0)
    events = ((family.name, _event(line)) for number, line in _lines(file) if number not in bad)
    _publish(settings, catalog, events, good, dry_run=dry_run)
    if bad:
        raise InvalidEventError(f"{len(bad):,} of {good + len(bad):,} lines are bad and were skipped")


def _check(family: Family, file: IO[bytes]) -> tuple[int, dict[int, str]]:
    """Return the number of good lines, and the problem of each bad line by line number."""
    encoder, good, bad = Encoder(family), 0, dict[int, str]()
    for number, line in tracked(_lines(file), None, "Checking"):
        try:
            encoder.encode(_event(line))
            good += 1
        except json.JSONDecodeError as error:
            bad[number] = f"not JSON: {error}"
        except (ValueError, RecursionError):
            bad[number] = "not JSON that can be read: a number or the nesting is too large, or bytes aren't UTF-8"
        except InvalidEventError as error:
            bad[number] = str(error)
    return good, bad


def _event(line: bytes) -> Any:
    """Parse a line; unlike orjson, `json` rounds no whole number, and reads half surrogates."""
    return json.loads(line.decode(), parse_constant=_no_json)


def _no_json(name: str) -> NoReturn:
    raise ValueError(name)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each line that isn't blank."""
    return ((number, line) for number, line in enumerate(file, 1) if not line.isspace())


def _seekable(file: IO[bytes]) -> IO[bytes]:
    """Return the file, or a temporary copy of a pipe: the events are read twice."""
    if file.seekable():
        return file
    copy = click.get_current_context().with_resource(tempfile.TemporaryFile())  # noqa: SIM115 (click closes it)
    shutil.copyfileobj(file, copy)
    copy.seek(0)
    return copy


def _publish(settings: Settings, catalog: Catalog, events: Events, total: int, *, dry_run: bool) -> None:
    counts = Counter[str]()
    began = time.perf_counter()
    with _destination(settings, catalog, dry_run=dry_run) as send:
        for family, event in tracked(events, total, "Checking" if dry_run else "Publishing"):
            send(family, event)
            counts[family] += 1
    seconds = time.perf_counter() - began
    by_family = ", ".join(f"{family} {count:,}" for family, count in counts.most_common())
    done = "checked" if dry_run else "published"
    rate = rate_text(counts.total(), seconds, "events")
    click.echo(f"{done} {counts.total():,} events in {seconds:.1f} s{rate}: {by_family}")


@contextmanager
def _destination(settings: Settings, catalog: Catalog, *, dry_run: bool) -> Iterator[Send]:
    """Yield the function that takes an event: it publishes or, in a dry run, checks.

    The broker has stored all events when the block ends.
    """
    if dry_run:
        encoders = {family.name: Encoder(family) for family in catalog.families}
        yield lambda family, event: encoders[family].encode(event)
    else:
        with Producer(settings, catalog) as producer:
            yield producer.send
