"""`python -m benchmarks.storage`: bytes a row, insert cost and query times of tables with and without their storage.

Three databases on a server of its own: `before` has the tables of the migrations up to 21, `after` those of today, and
`projected` the declared projections too. Events are decoded and sanitised as the worker does it. The last line of the
output is a JSON object.
"""

import os
import re
import shutil
import statistics
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import click
import numpy as np
import orjson
from rich.console import Console

from benchmarks.workload import START
from pipeline.catalog import Catalog, Family, load_catalog
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.contract import check_tables
from pipeline.clickhouse.coordinates import Source
from pipeline.clickhouse.migrate import MIGRATIONS, migrate
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column
from pipeline.config import ClickHouseSettings, load_settings
from pipeline.decode.decoder import Decoder
from pipeline.devstack.clickhouse import ClickHouseServer
from pipeline.devstack.ports import HOST
from pipeline.operations.storage.projections import PROJECTIONS, add_projection
from pipeline.privacy.hashing import Hasher
from pipeline.privacy.sanitise import Sanitiser
from pipeline.producer.encode import Encoder
from pipeline.producer.sample import sample

_LAST_BEFORE = 21  # newest migration without codecs and indexes
_BLOCK = 50_000
_PARTITIONS = 8
_SEED = 5
_TURNS = 3
_LOOKUPS = 15
_TOPIC = UUID(int=1)
_DOCS = Path(__file__).parent.parent / "docs/storage.md"
_TABLE = re.compile(r"(<!-- bench-storage -->\n).*?(<!-- /bench-storage -->)", re.DOTALL)
_SIZES = """
SELECT sum(data_compressed_bytes + secondary_indices_compressed_bytes) / sum(rows),
    sum(secondary_indices_compressed_bytes) / sum(rows),
    (SELECT sum(bytes_on_disk) FROM system.projection_parts
        WHERE database = currentDatabase() AND table = %(table)s AND active) / sum(rows)
FROM system.parts WHERE database = currentDatabase() AND table = %(table)s AND active
"""
_INSERTED = """
SELECT sum(ProfileEvents['UserTimeMicroseconds'] + ProfileEvents['SystemTimeMicroseconds']) / sum(written_rows)
FROM system.query_log
WHERE type = 'QueryFinish' AND query_kind = 'Insert' AND current_database = currentDatabase()
    AND query_start_time_microseconds >= fromUnixTimestamp64Micro(%(since)s)
"""
_CPU = """
SELECT quantileExact(0.5)(ProfileEvents['UserTimeMicroseconds'] + ProfileEvents['SystemTimeMicroseconds']) / 1000
FROM system.query_log WHERE type = 'QueryFinish' AND log_comment = %(comment)s
"""
_OTHER_DAY = """
INSERT INTO ui_events ({columns}) SELECT {values} FROM ui_events WHERE toDate(ts) = '{day}'
SETTINGS insert_allow_materialized_columns = 1, max_insert_threads = 1, max_threads = 1
"""
_QUERIES = {
    "session_id": "SELECT * FROM ui_events WHERE session_id = '{session}'",
    "session_id and its day": "SELECT * FROM ui_events WHERE session_id = '{session}' AND toDate(ts) = '{day}'",
    "commit_sha, 1,000 rows": "SELECT * FROM ui_events WHERE commit_sha = '{commit}' LIMIT 1000",
    "p95 by user agent": (
        "SELECT user_agent, count(), avg(latency_ms), quantile(0.95)(latency_ms) FROM ui_events "
        "WHERE toStartOfHour(ts) >= toDateTime('{day} 00:00:00', 'UTC') - INTERVAL 7 DAY GROUP BY user_agent"
    ),
    "sessions and p95 by event type": (
        "SELECT event_type, count(), uniq(session_id), avg(latency_ms), quantile(0.95)(latency_ms) FROM ui_events "
        "WHERE toStartOfHour(ts) >= toDateTime('{day} 00:00:00', 'UTC') - INTERVAL 7 DAY GROUP BY event_type"
    ),
}


@dataclass(slots=True)
class Figures:
    """Figures of one database."""

    name: str
    bytes_a_row: dict[str, float] = field(default_factory=dict)
    index_bytes_a_row: dict[str, float] = field(default_factory=dict)
    projection_bytes_a_row: dict[str, float] = field(default_factory=dict)
    insert_us_a_row: dict[str, float] = field(default_factory=dict)
    """CPU time of the server, the least of several turns."""
    query_ms: dict[str, float] = field(default_factory=dict)
    """Median by the clock; other work on the machine counts."""
    query_cpu_ms: dict[str, float] = field(default_factory=dict)
    """Median of the server's CPU time."""
    rows_read: dict[str, int] = field(default_factory=dict)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--rows", default=10_000_000, show_default=True, type=click.IntRange(min=10_000), help="Rows of ui_events."
)
@click.option("--days", default=10, show_default=True, type=click.IntRange(1, 60), help="Days that they are of.")
@click.option("--write-docs", is_flag=True, help="Put the table into docs/storage.md.")
def main(rows: int, days: int, write_docs: bool) -> None:
    """Measure three databases; print a table, and a JSON object as the last line."""
    console = Console(stderr=True)
    began = time.monotonic()
    with TemporaryDirectory(prefix="chimera-bench-") as directory, ClickHouseServer(Path(directory)) as server:
        settings = load_settings()
        catalog, figures = load_catalog(settings), []
        events = {name: _columns(catalog.family(name), rows // days) for name in ("ui_events", "llm_events")}
        console.print(f"{time.monotonic() - began:.0f} s: events are decoded")
        databases = [
            ClickHouseSettings(host=HOST, port=server.port, database=name) for name in ("before", "after", "projected")
        ]
        for database in databases:
            _create(database, Path(directory))
            figures.append(Figures(database.database))
        for _ in range(_TURNS):  # in turn, so that other work on the machine meets all of them
            for database, found in zip(databases, figures, strict=True):
                _measure_inserts(database, catalog, events, found)
        for database, found in zip(databases, figures, strict=True):
            console.print(f"{time.monotonic() - began:.0f} s: {database.database}: inserts are measured")
            _fill(database, days)
            _measure_rest(database, found)
        facts = _facts(databases[0], figures, rows, days)
    text = "\n".join(_markdown(facts, figures))
    click.echo(text)
    if write_docs:
        page = _DOCS.read_text(encoding="utf-8")
        _DOCS.write_text(_TABLE.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page), encoding="utf-8")
    click.echo(orjson.dumps(facts))


def _columns(family: Family, count: int) -> list[dict[str, Column]]:
    """Return micro-batches of a family's events of one day, as the worker inserts them."""
    encoder, decoder = Encoder(family), Decoder(family, sanitise=Sanitiser(family.schema, Hasher(b"benchmark" * 4)))
    values: list[list[bytes]] = [[] for _ in range(_PARTITIONS)]
    for _, event in sample(count, seed=_SEED, start=START, hours=24.0, families=[family.name]):
        values[zlib.crc32(event[family.key].encode()) % _PARTITIONS].append(encoder.encode(event).value)
    blocks = []
    for number, records in enumerate(values):
        for first in range(0, len(records), _BLOCK):
            decoded = decoder.decode(records[first : first + _BLOCK])
            offsets = np.arange(first, first + len(decoded.positions))
            blocks.append({**decoded.columns, **Source(_TOPIC, number).columns(offsets)})
    return blocks


def _create(settings: ClickHouseSettings, directory: Path) -> None:
    migrations = MIGRATIONS
    if settings.database == "before":
        migrations = directory / "migrations"
        migrations.mkdir()
        for file in sorted(MIGRATIONS.glob("*.sql")):
            if int(file.name[:3]) <= _LAST_BEFORE:
                shutil.copy(file, migrations)
    migrate(settings, migrations)
    if settings.database == "projected":
        for table, names in PROJECTIONS.items():
            for name in names:
                list(add_projection(settings, table, name))


def _measure_inserts(
    settings: ClickHouseSettings, catalog: Catalog, events: Mapping[str, list[dict[str, Column]]], found: Figures
) -> None:
    """Insert one day of each family into empty tables without merges; keep the least CPU time of the server."""
    sink = Sink(settings)
    sink.expect(check_tables(settings, catalog.families))
    with connect(settings) as client:
        for table, blocks in events.items():
            client.execute(f"TRUNCATE TABLE {table} SYNC")
            client.execute(f"SYSTEM STOP MERGES {table}")
            since = time.time_ns() // 1000
            for number, columns in enumerate(blocks):
                sink.insert(table, columns, f"{since}-{number}")
            client.execute("SYSTEM FLUSH LOGS")
            ((spent,),) = client.execute(_INSERTED, {"since": since})
            found.insert_us_a_row[table] = min(spent, found.insert_us_a_row.get(table, spent))
            client.execute(f"SYSTEM START MERGES {table}")
    sink.close()


def _fill(settings: ClickHouseSettings, days: int) -> None:
    """Make the other days from the first one: other times, sessions and commits."""
    changed = {
        "ts": "ts + INTERVAL {n} DAY",
        "session_id": "reinterpret(sipHash128(session_id, {n}), 'UUID')",
        "commit_sha": "lower(hex(SHA1(concat(commit_sha, '{n}'))))",
        "_offset": "_offset + {n} * 10000000",
    }
    with connect(settings) as client:
        names = [
            name
            for (name,) in client.execute(
                "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = 'ui_events'"
            )
        ]
        for number in range(1, days):
            values = ", ".join(changed.get(name, name).format(n=number) for name in names)
            client.execute(_OTHER_DAY.format(columns=", ".join(names), values=values, day=START.date()))
        for table in ("ui_events", "llm_events"):
            client.execute(f"OPTIMIZE TABLE {table} FINAL")


def _measure_rest(settings: ClickHouseSettings, found: Figures) -> None:
    with connect(settings) as client:
        for table in ("ui_events", "llm_events"):
            ((size, indexes, projections),) = client.execute(_SIZES, {"table": table})
            found.bytes_a_row[table] = size
            found.index_bytes_a_row[table] = indexes
            found.projection_bytes_a_row[table] = projections or 0.0
        for name, query in _QUERIES.items():
            times, read = [], []
            for values in _values(client):
                began = time.perf_counter()
                client.execute(query.format(**values), settings={"log_comment": f"{settings.database} {name}"})
                times.append(1000 * (time.perf_counter() - began))
                read.append(client.last_query.progress.rows)
            found.query_ms[name], found.rows_read[name] = statistics.median(times), int(statistics.median(read))
        client.execute("SYSTEM FLUSH LOGS")
        for name in _QUERIES:
            comment = f"{settings.database} {name}"
            ((found.query_cpu_ms[name],),) = client.execute(_CPU, {"comment": comment})


def _values(client: Any) -> Iterator[dict[str, Any]]:
    """Yield sessions and commits that are there, spread over the table; the same ones each time."""
    rows = client.execute(
        "SELECT session_id, toDate(ts), any(commit_sha) FROM ui_events WHERE sipHash64(session_id) % 997 = 3 "
        f"GROUP BY ALL ORDER BY sipHash64(session_id) LIMIT {_LOOKUPS}"
    )
    for session, day, commit in rows:
        yield {"session": session, "day": day, "commit": commit}


def _facts(settings: ClickHouseSettings, figures: list[Figures], rows: int, days: int) -> dict[str, Any]:
    with connect(settings) as client:
        ((version,),) = client.execute("SELECT version()")
    return {
        "rows": rows,
        "days": days,
        "clickhouse": version,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "databases": [
            {
                key: {name: round(value, 3) for name, value in each.items()} if isinstance(each, dict) else each
                for key, each in asdict(found).items()
            }
            for found in figures
        ],
    }


def _markdown(facts: Mapping[str, Any], figures: list[Figures]) -> Iterator[str]:
    yield "| | " + " | ".join(found.name for found in figures) + " |"
    yield "|---|" + "---|" * len(figures)
    for table in ("ui_events", "llm_events"):
        yield _line(f"{table}: bytes a row, indexes included", (f"{each.bytes_a_row[table]:.2f}" for each in figures))
        yield _line(f"{table}: of these indexes", (f"{each.index_bytes_a_row[table]:.2f}" for each in figures))
        yield _line(
            f"{table}: projections, bytes a row", (f"{each.projection_bytes_a_row[table]:.2f}" for each in figures)
        )
        yield _line(
            f"{table}: insert, µs of the server's CPU a row", (f"{each.insert_us_a_row[table]:.2f}" for each in figures)
        )
    for name in _QUERIES:
        yield _line(
            f"{name}: ms, ms of CPU, rows read",
            (f"{each.query_ms[name]:.1f}, {each.query_cpu_ms[name]:.1f}, {each.rows_read[name]:,}" for each in figures),
        )
    yield (
        f"\n{facts['rows']:,} rows of ui_events in {facts['days']} days, ClickHouse {facts['clickhouse']}, "
        f"{facts['cores']} cores, load {facts['load']} at the end; `make bench-storage`."
    )


def _line(title: str, cells: Iterator[str]) -> str:
    return f"| {title} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
