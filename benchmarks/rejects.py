"""`python -m benchmarks.rejects`: the cost of rejected records for the valid ones.

It starts a broker and a ClickHouse server of its own. In alternating runs, the worker stores the same events alone, and
with truncated records between them. The result is the throughput of the valid events.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import click
import orjson

from benchmarks.contenders import WORKER
from benchmarks.measure import Bench, rounds
from benchmarks.stage import stage
from benchmarks.workload import publish, usual


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--events", default=300_000, show_default=True, type=click.IntRange(min=1), help="Number of valid events."
)
@click.option(
    "--every", default=100, show_default=True, type=click.IntRange(min=1), help="Valid events for each rejected record."
)
@click.option(
    "--repeat", default=3, show_default=True, type=click.IntRange(min=1), help="Rounds; the median run counts."
)
def main(events: int, every: int, repeat: int) -> None:
    """Compare a clean topic with a topic that has rejected records; the last line is a JSON object.

    \b
    Examples:
      python -m benchmarks.rejects
      python -m benchmarks.rejects --every 10 --events 1000000

    \b
    Exit codes:
      0   measured
      1   an event was not stored exactly once
    """
    with ExitStack() as stack:
        benches = {
            "clean": stack.enter_context(_bench(events, None)),
            "with rejects": stack.enter_context(_bench(events, every)),
        }
        runs = rounds({name: (bench, WORKER) for name, bench in benches.items()}, repeat)
    share = runs["with rejects"].rows_per_s / runs["clean"].rows_per_s
    for name, each in runs.items():
        click.echo(f"{name:14}{each.rows_per_s:12,.0f} rows/s{each.cpu_us_per_row or 0:8.2f} µs CPU a row")
    click.echo(orjson.dumps({"events": events, "rejected_one_of": every, "speed_kept": round(share, 3)}))


@contextmanager
def _bench(events: int, every: int | None) -> Iterator[Bench]:
    """Start servers and publish the events; after each `every` events comes a truncated record."""
    with stage() as place:
        yield Bench(place, publish(place.settings, usual(events), place.bar("publish", events), every))


if __name__ == "__main__":
    main()
