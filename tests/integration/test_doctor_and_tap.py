"""`chimera doctor` finds what is wrong on real servers, and `chimera tap` shows records without touching the group."""

import json
import threading
from pathlib import Path

import pytest
from support.commands import Chimera, Ended
from support.processes import beside
from support.replays import UiEvents

from pipeline.clickhouse.barrier import is_up
from pipeline.clickhouse.table_lock import TableLock
from pipeline.config import env_name

pytestmark = pytest.mark.integration


def _verdicts(done: Ended) -> dict[str, tuple[str, str]]:
    return {each["check"]: (each["verdict"], each["detail"]) for each in done.facts["findings"]}


def test_doctor_says_what_is_wrong(log: UiEvents, chimera: Chimera, monkeypatch: pytest.MonkeyPatch) -> None:
    """A healthy pipeline is ok in every line; another hash key, a barrier and a missing column are found."""
    log.produce(40)
    assert chimera("replay", "ui_events", "--execute").returncode == 0
    healthy = chimera("doctor", "--json")
    assert healthy.returncode == 0, healthy.stdout
    found = _verdicts(healthy)
    assert {name for name, (verdict, _) in found.items() if verdict == "fail"} == set()
    assert found["hash key"] == ("ok", found["hash key"][1])
    assert "hashes in the tables are made with it" in found["hash key"][1]

    with log.client() as client:
        client.execute("ALTER TABLE ui_events MODIFY SETTING max_parts_in_total = 1")
        client.execute("ALTER TABLE deployments ADD COLUMN of_a_dba UInt8")
    monkeypatch.setenv(env_name("privacy", "hash_key"), "another-key-of-at-least-32-characters")
    ill = chimera("doctor", "--json")
    assert ill.returncode == 1
    found = _verdicts(ill)
    assert {name for name, (verdict, _) in found.items() if verdict == "fail"} == {"hash key", "barriers", "tables"}
    assert "of_a_dba" in found["tables"][1]

    with TableLock(log.settings.clickhouse, "ui_events"):  # as a replay that runs
        assert _verdicts(chimera("doctor", "--mend", "--json"))["barriers"][0] == "warn"
    with log.client() as client:
        assert is_up(client, "ui_events")
        assert "removed the one on ui_events" in chimera("doctor", "--mend").stdout
        assert not is_up(client, "ui_events")


def test_tap_is_masked_and_its_dump_can_be_replayed(log: UiEvents, chimera: Chimera, tmp_path: Path) -> None:
    """The group's offsets stay; a dump fills a table with all rows."""
    log.produce(40)
    assert chimera("migrate").returncode == 0
    seen = chimera("tap", "ui_events", "--since", "1h", "--no-follow", "--json")
    records = [json.loads(line) for line in seen.stdout.splitlines()]
    assert len(records) == 40
    assert {each["fields"]["latency_ms"] for each in records} == {"number"}
    assert {each["key"] for each in records} <= {"null", "36 bytes"}
    assert not any(event["session_id"] in seen.stdout for event in log.events)

    some = chimera(
        "tap", "ui_events", "--since", "1h", "--no-follow", "--where", "event_type = error", "--unmask", "--json"
    )
    wanted = sorted(event["session_id"] for event in log.events if event["event_type"] == "error")
    assert sorted(json.loads(line)["fields"]["session_id"] for line in some.stdout.splitlines()) == wanted

    dump = tmp_path / "ui_events.dump"
    dump.write_text(chimera("tap", "ui_events", "--since", "1h", "--no-follow", "--raw").stdout, encoding="utf-8")
    filled = chimera("replay", "ui_events", "--from-file", str(dump), "--execute", "--json")
    assert filled.facts["inserted"] == 40
    assert log.stored() == (40, 40)


def test_tap_shows_records_as_they_come(log: UiEvents, chimera: Chimera) -> None:
    """Earlier records are left out, and `--limit` ends it."""
    log.produce(10)
    over = threading.Event()

    def keep_producing() -> None:
        while not over.wait(1.0):
            log.produce(10)

    with beside(keep_producing):
        try:
            seen = chimera("tap", "ui_events", "--limit", "3", "--unmask", "--json")
        finally:
            over.set()
    fields = [json.loads(line)["fields"] for line in seen.stdout.splitlines()]
    new = {event["session_id"] for event in log.events[10:]}
    assert len(fields) == 3
    assert {each["session_id"] for each in fields} <= new
