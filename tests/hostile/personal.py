"""Runs the corpus of personal data through a real worker, and searches all of the worker's traces for it."""

import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from support import pii
from support.events import events, publish, settled
from support.processes import Worker, prepare

from pipeline.catalog import Family
from pipeline.clickhouse.client import connect
from pipeline.config import Settings, env_name
from pipeline.devstack.ports import HOST

_LETTERS = 1_000_000  # above the number of dead letters
_TABLES = "SELECT name FROM system.tables WHERE database = currentDatabase()"


def leaks(settings: Settings, environ: Mapping[str, str], directory: Path) -> dict[str, list[str]]:
    """Place to the strings of the corpus that were found there; empty if nothing leaked.

    Each string was in each text field of each family.

    Args:
        settings: settings of broker and database.
        environ: environment of the worker, with the same settings.
        directory: directory for its log.
    """
    catalog = prepare(settings)
    records = {family.name: _records(family) for family in catalog.families if pii.text_fields(family)}
    environ = {**environ, env_name("log", "level"): "DEBUG"}
    with Worker(environ, directory / "personal.log") as worker:
        worker.wait_until_consuming()
        for name, values in records.items():
            publish(settings, catalog.family(name).topic.name, values)
        for name, values in records.items():
            settled(worker, settings, catalog.family(name), len(values))
            assert worker.metric("chimera_rows_inserted_total", family=name) > len(pii.CORPUS)
        with urllib.request.urlopen(f"http://{HOST}:{environ[env_name('worker', 'web_port')]}/metrics") as answer:
            said = {"metrics": answer.read().decode(), "log": worker.log, "ready": worker.why_not_ready}
    assert "record rejected" in said["log"]
    said["dlq show"] = _shown(environ, "dlq", "show", "--limit", str(_LETTERS))
    assert said["dlq show"].count("pattern_mismatch") > len(pii.CORPUS)
    for name in records:
        said[f"tap {name}"] = _shown(environ, "tap", name, "--since", "1h", "--no-follow")
        assert said[f"tap {name}"].count(f"{name}:") > len(pii.CORPUS)
    said["replay"] = _shown(environ, "replay", "ui_events")
    said["verify"] = _shown(environ, "verify", "--by", "hour", "--json")
    assert '"lost":0,' in said["verify"]
    said["status"] = _shown(environ, "status", "--json")
    said["maintenance"] = _shown(environ, "maintenance")
    said["rollup verify"] = _shown(environ, "rollup", "verify")
    found = {where: pii.found(text) for where, text in {**_in_tables(settings), **said}.items()}
    return {where: [str(secret) for secret in secrets] for where, secrets in found.items() if secrets}


def _shown(environ: Mapping[str, str], *command: str) -> str:
    """Run `chimera`, and return its output of both streams."""
    chimera = Path(sys.executable).with_name("chimera")
    return subprocess.run(
        [chimera, *command], env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True
    ).stdout


def _records(family: Family) -> list[bytes]:
    event = events(family.name, 1)[0]
    return [record for field in pii.text_fields(family) for record in pii.records(family, event, field)]


def _in_tables(settings: Settings) -> dict[str, str]:
    """Table to all its values in searchable form."""
    with connect(settings.clickhouse) as client:
        tables = [table for (table,) in client.execute(_TABLES)]
        return {table: pii.searched(client.execute(f"SELECT * FROM `{table}`")) for table in tables}
