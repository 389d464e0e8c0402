"""`chimera produce`: publish the events of a file, or sample events."""

import math
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import IO, Any

import click
import orjson
from click.core import ParameterSource

from pipeline.catalog import Catalog, Family, load_catalog
from pipeline.cli.progress import tracked
from pipeline.config import Settings, load_settings
from pipeline.producer.encode import Encoder, InvalidEventError
from pipeline.producer.producer import Producer
from pipeline.sample import sample

_SHOWN_LINES = 20
_MAX_HOURS = 87_600  # ten years: a sample begins well after 1970

Events = Iterable[tuple[str, Mapping[str, Any]]]
Send = Callable[[str, Mapping[str, Any]], object]


@click.command()
@click.argument("family", required=False)
@click.option("--file", type=click.File("rb"), help="Events of FAMILY, one JSON object a line; - is standard input.")
@click.option("--sample", "count", type=click.IntRange(min=1), metavar="N", help="N sample events instead of a file.")
@click.option("--families", default="", metavar="A,B", help="Sample events of these families only.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same sample events.")
@click.option(
    "--hours",
    type=click.FloatRange(min=0, min_open=True, max=_MAX_HOURS),
    default=24.0,
    show_default=True,
    help="Sample events cover so many hours, up to now.",
)
@click.option("--skip-bad", is_flag=True, help="Publish the good lines of the file all the same.")
@click.option("--dry-run", is_flag=True, help="Only check the events; needs no broker.")
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
    """Publish events to the topic of their family: those of a file, or sample events.

    The whole file is checked before anything is sent; with a bad line in it, nothing is, unless --skip-bad is given.
    Bad lines are listed on standard error with their numbers. docs/producing.md says what an event may hold.

    \b
    Examples:
      chimera produce ui_events --file examples/ui_events.jsonl
      zcat events.jsonl.gz | chimera produce llm_events --file - --skip-bad
      chimera produce --sample 200000
      chimera produce --sample 1000 --families ui_events,episodes --seed 7 --hours 1 --dry-run

    \b
    Exit codes:
      0   all events are stored by the broker
      1   a line is bad, or the broker refuses an event
      2   wrong usage
      69  broker or schema registry doesn't answer
      70  the schema registry refuses the login or the schema
      78  a setting, topics.yaml or a schema is wrong, or there is no such family
    """
    if count is not None and file is None and family is None:
        _refuse("skip_bad", beside="--sample")
        names = [name.strip() for name in families.split(",")] if _given("families") else []
        if not all(names):
            raise click.UsageError("--families: expected names of families, comma-separated")
        if math.isnan(hours):
            raise click.UsageError("--hours: expected a number")
        settings = load_settings()
        catalog = load_catalog(settings)
        wanted = [catalog.family(name).name for name in names]
        start = datetime.now(UTC) - timedelta(hours=hours)
        events = sample(count, seed=seed, start=start, hours=hours, families=wanted)
        _publish(settings, catalog, events, count, dry_run=dry_run)
    elif count is None and file is not None and family is not None:
        _refuse("families", "hours", "seed", beside="--file")
        settings = load_settings()
        catalog = load_catalog(settings)
        _publish_file(settings, catalog, catalog.family(family), _seekable(file), skip_bad=skip_bad, dry_run=dry_run)
    else:
        raise click.UsageError("expected either FAMILY and --file, or --sample")


def _given(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE


def _refuse(*options: str, beside: str) -> None:
    """An option that would have no effect is a misunderstanding."""
    for option in filter(_given, options):
        raise click.UsageError(f"--{option.replace('_', '-')} has no meaning beside {beside}")


def _publish_file(
    settings: Settings, catalog: Catalog, family: Family, file: IO[bytes], *, skip_bad: bool, dry_run: bool
) -> None:
    good, bad = _check(family, file)
    for number, problem in list(bad.items())[:_SHOWN_LINES]:
        click.echo(f"line {number}: {problem}", err=True)
    if len(bad) > _SHOWN_LINES:
        click.echo(f"... and {len(bad) - _SHOWN_LINES:,} more", err=True)
    if bad and not skip_bad:
        raise InvalidEventError(f"{len(bad):,} of {good + len(bad):,} lines are bad: nothing was published")
    file.seek(0)
    events = ((family.name, orjson.loads(line)) for number, line in _lines(file) if number not in bad)
    _publish(settings, catalog, events, good, dry_run=dry_run)
    if bad:
        raise InvalidEventError(f"{len(bad):,} of {good + len(bad):,} lines are bad: these were skipped")


def _check(family: Family, file: IO[bytes]) -> tuple[int, dict[int, str]]:
    """How many good lines there are, and what is wrong with each bad one, by its number."""
    encoder, good, bad = Encoder(family), 0, dict[int, str]()
    for number, line in tracked(_lines(file), None, "Checking"):
        try:
            encoder.encode(orjson.loads(line))
            good += 1
        except orjson.JSONDecodeError as error:
            bad[number] = f"not JSON: {error}"
        except InvalidEventError as error:
            bad[number] = str(error)
    return good, bad


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Number and content of each line that isn't blank."""
    return ((number, line) for number, line in enumerate(file, 1) if not line.isspace())


def _seekable(file: IO[bytes]) -> IO[bytes]:
    """The file, or a copy of a pipe: it is read twice."""
    if file.seekable():
        return file
    copy = click.get_current_context().with_resource(tempfile.TemporaryFile())  # noqa: SIM115 (it is one)
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
    rate = counts.total() / seconds
    click.echo(f"{done} {counts.total():,} events in {seconds:.1f} s, {rate:,.0f} events/s: {by_family}")


@contextmanager
def _destination(settings: Settings, catalog: Catalog, *, dry_run: bool) -> Iterator[Send]:
    """Where events go: to the broker, all stored when the block ends, or only through the check."""
    if dry_run:
        encoders = {family.name: Encoder(family) for family in catalog.families}
        yield lambda family, event: encoders[family].encode(event)
    else:
        with Producer(settings, catalog) as producer:
            yield producer.send
