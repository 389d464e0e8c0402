"""`python -m benchmarks.verify`: time and memory of `chimera verify`, on servers of its own."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import click
import orjson
import psutil
from confluent_kafka import Consumer, TopicPartition

from benchmarks.process import ContenderError
from benchmarks.stage import Stage, stage
from benchmarks.workload import FAMILY, usual
from pipeline.catalog import Family, load_catalog
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.coordinates import Source
from pipeline.clickhouse.migrate import migrate
from pipeline.config import Settings, env_name
from pipeline.kafka.client import client_config
from pipeline.kafka.producing import RecordProducer
from pipeline.kafka.topics import TopicAdmin, plan
from pipeline.producer.encode import Encoder

_SECONDS = 60.0
_QUEUE = 100_000
# Rows of five days, in the order of their offsets; the log's records needn't be read, so they are all alike.
_FILL = """
INSERT INTO {table} (ts, session_id, commit_sha, event_type, latency_ms, user_agent, metadata,
                     _topic_id, _partition, _offset)
SELECT fromUnixTimestamp64Milli(toInt64(1767225600000 + number * 432000000 / {events}), 'UTC'),
       reinterpretAsUUID(sipHash128(number DIV 50)), repeat('0', 40),
       ['overlay_open', 'query_submit', 'error'][number % 3 + 1], number % 1000, 'Firefox 144', '{{}}',
       toUUID('{topic_id}'), number % {partitions}, number DIV {partitions}
FROM numbers({begin}, {count})
"""


class Figures(NamedTuple):
    """One run of the command."""

    rows: int
    seconds: float
    cpu_seconds: float
    rss_mb: float
    facts: dict[str, Any]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rows", default=10_000_000, show_default=True, type=click.IntRange(min=1000), help="Rows of ui_events.")
def main(rows: int) -> None:
    """Measure `chimera verify ui_events` over a tenth of the rows, over all, and over all with four differences.

    \b
    Exit codes:
      0   measured, and the differences were found
      1   the command found other differences
      69  a server isn't available
    """
    with stage() as on:
        family, topic_id = _prepare(on.settings)
        runs = []
        for begin, end in ((0, rows // 10), (rows // 10, rows)):
            _fill(on, family, topic_id, begin, end)
            runs.append(_measure(on))
        _damage(on.settings, family)
        runs.append(_measure(on))
    found = [(each.facts["lost"], each.facts["doubled"]) for each in runs]
    for each in runs:
        click.echo(
            f"{each.rows:>12,} rows  {each.seconds:6.2f} s  {each.cpu_seconds:6.2f} s CPU  {each.rss_mb:6.0f} MB  "
            f"{each.facts['lost']} lost, {each.facts['doubled']} doubled"
        )
    click.echo(f"load average {os.getloadavg()[0]:.1f}")
    sys.exit(0 if found == [(0, 0), (0, 0), (3, 1)] else 1)


def _prepare(settings: Settings) -> tuple[Family, str]:
    """Create topics and tables; return the family and the id of its topic."""
    catalog = load_catalog(settings)
    family = catalog.family(FAMILY)
    admin = TopicAdmin(settings.kafka)
    admin.apply(plan(catalog.topics, admin.read([]), settings.topics.file))
    migrate(settings.clickhouse)
    return family, admin.ids([family.topic.name])[family.topic.name]


def _fill(on: Stage, family: Family, topic_id: str, begin: int, end: int) -> None:
    """Make the log, the rows and the commit grow from `begin` to `end` events."""
    ((_, event),) = usual(1)
    value = Encoder(family).encode(event).value
    partitions = family.topic.partitions
    producer = RecordProducer(on.settings.kafka, {"linger.ms": 50}, timeout_seconds=_SECONDS)
    bar = on.bar(f"{end:,} events", end - begin)
    for number in range(begin, end):
        producer.produce(family.topic.name, value, partition=number % partitions)
        if number % _QUEUE == 0:
            bar(number - begin)
    producer.flush()
    bar(end - begin)
    with connect(on.settings.clickhouse) as client:
        for first in range(begin, end, 500_000):
            sql = _FILL.format(
                table=family.table,
                events=end,
                partitions=partitions,
                topic_id=Source.of(topic_id, 0).topic_id,
                begin=first,
                count=min(500_000, end - first),
            )
            client.execute(sql, settings={"insert_allow_materialized_columns": 1})
    consumer = Consumer({**client_config(on.settings.kafka), "group.id": on.settings.kafka.group_id})
    ends = [TopicPartition(family.topic.name, number, -(-(end - number) // partitions)) for number in range(partitions)]
    consumer.commit(offsets=ends, asynchronous=False)
    consumer.close()


def _damage(settings: Settings, family: Family) -> None:
    """Delete three rows, and insert one again."""
    with connect(settings.clickhouse) as client:
        client.execute(
            f"INSERT INTO {family.table} (ts, session_id, _topic_id, _partition, _offset) "
            f"SELECT ts, session_id, _topic_id, _partition, _offset FROM {family.table} "
            "WHERE _partition = 2 AND _offset = 5000",
            settings={"insert_allow_materialized_columns": 1},
        )
        client.execute(
            f"ALTER TABLE {family.table} DELETE WHERE _partition = 1 AND _offset IN (10, 11, 9000)",
            settings={"mutations_sync": 1},
        )


def _measure(on: Stage) -> Figures:
    """Run the command; return its figures."""
    settings = on.settings
    environ = {
        **os.environ,
        env_name("kafka", "bootstrap_servers"): settings.kafka.bootstrap_servers,
        env_name("clickhouse", "port"): str(settings.clickhouse.native_port),
    }
    command = [str(Path(sys.executable).with_name("chimera")), "verify", FAMILY, "--json"]
    began, peak, cpu = time.monotonic(), 0, 0.0
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as process:  # its output fits the pipe
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.Error):
                peak, cpu = max(peak, watched.memory_info().rss), sum(watched.cpu_times()[:2])
            time.sleep(0.02)
        seconds, said = time.monotonic() - began, process.stdout.read() if process.stdout else b""
    if process.returncode not in {0, 1}:
        raise ContenderError(f"chimera verify ended with exit code {process.returncode}")
    facts = orjson.loads(said)
    return Figures(facts["families"][0]["rows"], seconds, cpu, peak / 1e6, facts)


if __name__ == "__main__":
    main()
