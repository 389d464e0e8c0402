"""`chimera backup` on real servers: made, listed, verified, restored, removed; killed and refused."""

import signal
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from support.backups import StoredEvents
from support.commands import Chimera
from support.processes import eventually

from pipeline.clickhouse.client import connect
from pipeline.clickhouse.migrate import migrate
from pipeline.devstack.process import spawn
from pipeline.kafka.client import client_config
from pipeline.operations.backup.manifest import Manifest
from pipeline.operations.backup.newest import newest

pytestmark = pytest.mark.integration


def test_a_chain_is_made_verified_and_restored_beside(stored: StoredEvents, chimera: Chimera) -> None:
    """An incremental backup has the rows of its base; a restore changes nothing beside its own database."""
    own = stored.log.settings.clickhouse.database
    stored.add(300)
    full = stored.backup()
    stored.add(100)
    more = stored.backup()
    assert (full["kind"], more["kind"], more["base"]) == ("full", "incremental", full["name"])
    assert sum(full["topics"]["ui_events"]["offsets"].values()) == 300
    listed = chimera("backup", "list", "--json").facts["backups"]
    assert [(each["name"], each["state"]) for each in listed] == [(full["name"], "ok"), (more["name"], "ok")]
    for name, count in ((full["name"], 300), (more["name"], 400)):
        verified = chimera("backup", "verify", name, "--json")
        assert (verified.returncode, verified.facts["rows"]["ui_events"]) == (0, count), verified
    plan = chimera("backup", "restore", more["name"], "--json").facts
    assert (plan["into"], plan["chain"], plan["executed"]) == (f"{own}_restored", [more["name"], full["name"]], False)
    assert chimera("backup", "restore", more["name"], "--execute").returncode == 0
    assert stored.has(f"{own}_restored", 400)
    assert stored.has(own, 400)
    again = chimera("backup", "restore", full["name"], "--execute")
    assert (again.returncode, "would double" in again.stderr) == (1, True)
    about = newest(stored.log.settings.clickhouse)
    assert (about.name, about.last_failed, about.verified_at is None) == (more["name"], False, False)
    assert 0 < (about.age_seconds() or 0) < 600


def test_a_day_comes_back_in_place_and_doubles_nothing(stored: StoredEvents, chimera: Chimera) -> None:
    """A day that has rows is refused, and so is any restore in place while a worker is in the group."""
    log, own = stored.log, stored.log.settings.clickhouse.database
    stored.add(300)
    name = stored.backup("--table", "ui_events")["name"]
    with log.client() as client:
        day = client.execute("SELECT toString(toDate(min(ts))) FROM ui_events")[0][0]
    order = ("backup", "restore", name, "--table", "ui_events", "--day", day, "--in-place", "--execute")
    refused = chimera(*order)
    assert (refused.returncode, "would double" in refused.stderr) == (1, True)
    with log.client() as client:
        client.execute(f"ALTER TABLE ui_events DROP PARTITION '{day}'")
    assert not stored.has(own, 300)
    member = Consumer({**client_config(log.settings.kafka), "group.id": log.settings.kafka.group_id})
    member.subscribe([log.family.topic.name])
    eventually(lambda: member.poll(0.1) is None and member.assignment(), "a member")
    running = chimera(*order)
    member.close()
    assert (running.returncode, "stop the workers" in running.stderr) == (1, True)
    assert chimera(*order).returncode == 0
    assert stored.has(own, 300)


def test_a_killed_backup_blocks_none_and_is_no_base(
    stored: StoredEvents, chimera: Chimera, environ: Mapping[str, str], tmp_path: Path
) -> None:
    """The server ends a backup whose process was killed; one that the server forgot has failed."""
    stored.add(300)
    running = spawn(
        [str(Path(sys.executable).with_name("chimera")), "backup", "create"], dict(environ), tmp_path / "log"
    )
    manifest = Manifest(stored.log.settings.clickhouse)
    eventually(manifest.records, "begun")
    running.send_signal(signal.SIGKILL)
    running.wait(30)
    killed = manifest.records()[0]
    forgotten = dict(killed.facts) | {"began_at": datetime(2026, 1, 1, tzinfo=UTC).isoformat()}
    manifest.add("lost-20260101T000000Z-full-0000", "began", forgotten)
    eventually(lambda: "running" not in _states(chimera), "settled", 60)
    made = stored.backup()
    assert made["state"] == "ok"
    assert made["base"] in {None, killed.name}
    assert _states(chimera)[0] == "failed"
    assert chimera("backup", "verify", made["name"]).returncode == 0


def test_a_damaged_backup_is_found(stored: StoredEvents, chimera: Chimera) -> None:
    """Verification fails if a file is gone, and if the manifest has other figures than the backup."""
    stored.add(200)
    name = stored.backup()["name"]
    manifest = Manifest(stored.log.settings.clickhouse)
    figures = {table: dict(days) for table, days in (manifest.record(name).figures or {}).items()}
    day = min(figures["ui_events"])
    figures["ui_events"][day] = dict(figures["ui_events"][day]) | {"checksum": "1"}
    manifest.add(name, "done", {"figures": figures})
    differs = chimera("backup", "verify", name)
    assert (differs.returncode, f"ui_events: {day}: " in differs.stdout) == (1, True)
    with stored.log.client() as client:
        parts = [each for each in (stored.folder(client) / name).rglob("*") if each.name == "data.bin"]
    parts[0].unlink()
    broken = chimera("backup", "verify", name)
    assert (broken.returncode, "can't be restored" in broken.stdout) == (1, True)


def test_a_lost_server_learns_of_all_backups_from_one(stored: StoredEvents, chimera: Chimera) -> None:
    """The manifest is in each backup; the database is brought back in place, then the log fills the rest."""
    log, own = stored.log, stored.log.settings.clickhouse.database
    stored.add(200)
    first = stored.backup()["name"]
    stored.add(100)
    second = stored.backup()["name"]
    stored.add(50)
    with connect(log.settings.clickhouse, database="") as client:
        client.execute(f"DROP DATABASE `{own}` SYNC")
    assert chimera("backup", "list").returncode == 1
    assert chimera("backup", "adopt", "nonsense-1-2-3").returncode == 78
    found = chimera("backup", "adopt", second, "--json").facts["backups"]
    assert [(each["name"], each["state"]) for each in found] == [(first, "ok"), (second, "ok")]
    assert chimera("backup", "restore", second, "--in-place", "--execute").returncode == 0
    assert migrate(log.settings.clickhouse) == ()
    assert stored.has(own, 300)
    assert chimera("replay", "ui_events", "--execute", "--json").facts["inserted"] == 50
    assert stored.has(own, 350)


def test_pruning_keeps_what_a_kept_backup_builds_on(stored: StoredEvents, chimera: Chimera) -> None:
    """Files of old backups go from the disk, and the chain of the newest one stays restorable."""
    stored.add(100)
    old = stored.backup()["name"]
    base = stored.backup("--full")["name"]
    time.sleep(1.1)
    tip = stored.backup("--incremental")["name"]
    planned = chimera("backup", "prune", "--keep-days", "0", "--json").facts
    assert (planned["removed"], planned["needed"], planned["kept"]) == ([old], [base], [tip])
    assert chimera("backup", "prune", "--keep-days", "0", "--execute").returncode == 0
    with stored.log.client() as client:
        assert not (stored.folder(client) / old).exists()
    assert _states(chimera) == ["pruned", "ok", "ok"]
    assert chimera("backup", "verify", tip).returncode == 0


def _states(chimera: Chimera) -> list[str]:
    return [each["state"] for each in chimera("backup", "list", "--json").facts["backups"]]
