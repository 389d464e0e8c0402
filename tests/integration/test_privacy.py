"""No personal data rests in ClickHouse, or is in anything that the worker says."""

import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pii
import pytest
from events import events, publish, settled
from processes import Worker, prepare

from pipeline.clickhouse import connect
from pipeline.config import Settings, env_name
from pipeline.errors import ConfigError
from pipeline.families import Family

pytestmark = pytest.mark.integration

_TABLES = "SELECT name FROM system.tables WHERE database = currentDatabase()"


def _records(family: Family) -> list[bytes]:
    event = events(family.name, 1)[0]
    return [record for field in pii.text_fields(family) for record in pii.records(family, event, field)]


def _in_tables(settings: Settings) -> dict[str, str]:
    """All values of all columns of every table."""
    with connect(settings.clickhouse) as client:
        tables = [table for (table,) in client.execute(_TABLES)]
        return {table: "\n".join(map(str, client.execute(f"SELECT * FROM `{table}`"))) for table in tables}


def test_nothing_of_the_corpus_is_in_a_table_the_log_or_the_metrics(
    settings: Settings, environ: Mapping[str, str], tmp_path: Path
) -> None:
    """Each string in each text field of each family, in every way that it can be written there, through a worker."""
    catalog = prepare(settings)
    records = {family.name: _records(family) for family in catalog.families if pii.text_fields(family)}
    environ = {**environ, env_name("log", "level"): "DEBUG"}
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        for name, values in records.items():
            publish(settings, catalog.family(name).topic.name, values)
        for name, values in records.items():
            settled(worker, settings, catalog.family(name), len(values))
            assert worker.metric("chimera_rows_inserted_total", family=name) > len(pii.CORPUS)
        with urllib.request.urlopen(f"http://127.0.0.1:{environ[env_name('worker', 'web_port')]}/metrics") as answer:
            said = {"metrics": answer.read().decode(), "log": worker.log}
    assert "record rejected" in said["log"]
    leaks = {where: pii.found(text) for where, text in {**_in_tables(settings), **said}.items()}
    assert {where: secrets for where, secrets in leaks.items() if secrets} == {}


def test_a_worker_without_a_key_does_not_start(environ: Mapping[str, str], tmp_path: Path) -> None:
    """One line says which setting is missing and how to make a key."""
    name = env_name("privacy", "hash_key")
    without = {key: value for key, value in environ.items() if key != name}
    for key, said in (
        (None, "expected a secret; make one with `openssl"),
        ("short", "expected at least 32 characters"),
    ):
        with Worker({**without, **({name: key} if key else {})}, tmp_path / "log") as worker:
            assert worker.wait() == ConfigError.exit_code
            assert worker.log.startswith(f"chimera: {name}: {said}")
            assert worker.log.count("\n") == 1
