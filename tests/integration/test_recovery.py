"""`chimera restore --to` on real servers: the rows of a moment, none lost, doubled or too new."""

import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from support.backups import StoredEvents, at
from support.commands import Chimera
from support.processes import eventually

from pipeline.clickhouse.client import connect
from pipeline.devstack.process import spawn
from pipeline.operations.backup.manifest import Manifest

pytestmark = pytest.mark.integration


def test_any_moment_is_recovered_exactly(stored: StoredEvents, chimera: Chimera) -> None:
    """From a full backup, from an incremental one, and before the oldest one: only rows that are too new go then."""
    own = stored.log.settings.clickhouse.database
    before = stored.add(200)
    stored.add(100)
    full = stored.backup()["name"]
    after_full = stored.add(100)
    more = stored.backup()["name"]
    after_more = stored.add(100)
    stored.add(100)
    for number, (moment, count, name, deleted, inserted) in enumerate(
        [(before, 200, full, 100, 0), (after_full, 400, full, 0, 100), (after_more, 500, more, 0, 100)]
    ):
        into = f"{own}_at_{number}"
        planned = chimera("restore", "--to", at(moment), "--into", into, "--json").facts
        assert (planned["backup"], planned["after"]) == (name, moment == before) or moment == after_full, planned
        done = chimera("restore", "--to", at(moment), "--into", into, "--execute", "--json")
        assert (done.returncode, done.facts["deleted"], done.facts["rows"]["ui_events"]) == (0, deleted, count) or (
            planned["backup"] == more
        ), done
        assert stored.has(into, count), (number, done)
        assert planned["backup"] == more or done.facts["inserted"] == inserted
    assert stored.has(own, 600)


def test_a_recovery_that_is_killed_goes_on(
    stored: StoredEvents, chimera: Chimera, environ: Mapping[str, str], tmp_path: Path
) -> None:
    """After kill -9 at any step the same command ends with the same rows, and another moment is refused."""
    own = stored.log.settings.clickhouse.database
    other = stored.add(1_000)
    stored.backup()
    moment = stored.add(3_000)
    stored.add(500)
    arguments = ("restore", "--to", at(moment), "--execute")
    manifest = Manifest(stored.log.settings.clickhouse)
    executable = str(Path(sys.executable).with_name("chimera"))
    into = f"{own}_recovered"
    reached: list[Callable[[], bool]] = [
        lambda: bool(manifest.restore_of(into)),
        lambda: manifest.restore_of(into)["step"] != "restoring",
        lambda: stored.log.stored(f"{into}.ui_events")[0] > 1_000,
    ]
    for number, step in enumerate(reached):
        running = spawn([executable, *arguments], dict(environ), tmp_path / f"{number}.log")
        eventually(lambda: running.poll() is not None or step(), "begun")  # noqa: B023
        running.send_signal(signal.SIGKILL)
        running.wait(30)
    done = chimera(*arguments, "--json")
    assert (done.returncode, done.facts["resumed"]) == (0, True), done
    assert stored.has(into, 4_000)
    again = chimera(*arguments, "--json")
    assert (again.returncode, again.facts["inserted"], again.facts["deleted"]) == (0, 0, 0)
    assert chimera("restore", "--to", at(other), "--execute").returncode == 1


def test_a_recovery_in_place_exchanges_the_tables(stored: StoredEvents, chimera: Chimera) -> None:
    """The live tables become those of the moment, and the tables of before are kept in the other database."""
    own = stored.log.settings.clickhouse.database
    moment = stored.add(200)
    stored.backup()
    stored.add(100)
    for _ in range(2):  # the second run finds it done
        done = chimera("restore", "--to", at(moment), "--in-place", "--execute")
        assert done.returncode == 0, done
        assert stored.has(own, 200)
        assert stored.has(f"{own}_recovered", 300)
    assert chimera("restore", "--to", at(moment), "--execute").returncode == 1  # it would change the tables of before
    assert stored.has(f"{own}_recovered", 300)


def test_offsets_that_nothing_has_are_named(stored: StoredEvents, chimera: Chimera) -> None:
    """Retention beyond the backup's offsets: refused, with the ranges; allowed, the rest is recovered."""
    own, topic = stored.log.settings.clickhouse.database, stored.log.topic
    stored.add(200)
    stored.backup()
    moment = stored.add(100)
    stored.add(100)
    topic.delete_records(120)
    refused = chimera("restore", "--to", at(moment), "--execute")
    assert refused.returncode == 1
    assert f"Lost: {topic.name}, partition 0, offsets 100 to 119: newer than the backup" in refused.stderr
    assert chimera("restore", "--to", at(moment), "--allow-lost", "--execute").returncode == 0
    with connect(stored.in_database(f"{own}_recovered").clickhouse) as client:
        assert client.execute("SELECT count(), uniqExact(_partition, _offset) FROM ui_events") == [(280, 280)]
    later = stored.backup()["name"]
    chosen = chimera("restore", "--to", at(moment), "--into", f"{own}_later", "--execute", "--json")
    assert (chosen.returncode, chosen.facts["backup"], chosen.facts["after"]) == (0, later, True), chosen
    assert stored.has(f"{own}_later", 300)


def test_a_topic_that_was_created_anew_is_refused(stored: StoredEvents, chimera: Chimera) -> None:
    """Its offsets are those of other records; the backup is restored as it is."""
    own = stored.log.settings.clickhouse.database
    stored.add(100)
    name = stored.backup()["name"]
    moment = stored.add(100)
    stored.log.topic.create_anew()
    refused = chimera("restore", "--to", at(moment), "--execute")
    assert (refused.returncode, "another topic id" in refused.stderr) == (1, True), refused
    assert chimera("backup", "restore", name, "--execute").returncode == 0
    assert stored.has(f"{own}_restored", 100)
