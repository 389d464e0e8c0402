"""Backups without servers: the choice of a backup, chains, pruning, figures, closed hours, destinations."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.config import RollupSettings, Settings, load_settings
from pipeline.errors import ConfigError, HaltError
from pipeline.operations.backup.destination import Destination
from pipeline.operations.backup.figures import compare_takes, differences
from pipeline.operations.backup.manifest import BackupRecord, chain_of
from pipeline.operations.backup.moment import MomentCut, UnreachableError, choose
from pipeline.operations.backup.prune import plan_pruning, remove
from pipeline.operations.backup.sessions import closed_before
from pipeline.tool_settings import BackupSettings

_NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
_TOPIC = "AAAAAAAAAAAAAAAAAAAAAQ"
_HOUR_MS = 3_600_000


def _record(name: str, offset: int = 0, *, base: str | None = None, days: float = 0, **more: Any) -> BackupRecord:
    events = frozenset(more.pop("events", {"began", "done"}))
    facts: dict[str, Any] = {
        "base": base,
        "whole": True,
        "began_at": (_NOW - timedelta(days=days)).isoformat(),
        "topics": {"ui_events": {"topic": "t", "topic_id": _TOPIC, "offsets": {"0": offset, "1": offset}}},
    }
    return BackupRecord(name, facts | more, events)


def _cuts(*ends: int, begins: int = 0, topic_id: str = _TOPIC) -> Mapping[str, MomentCut]:
    return {"ui_events": MomentCut("t", topic_id, dict(enumerate(ends)), dict.fromkeys(range(len(ends)), begins))}


def test_a_recovery_begins_with_the_newest_backup_before_its_moment() -> None:
    """Offsets decide, in every partition; without one before the moment, the oldest after it is taken."""
    records = [_record("a", 100), _record("b", 200), _record("c", 300)]
    assert choose(records, _cuts(250, 250)).record.name == "b"
    assert choose(records, _cuts(250, 199)).record.name == "a"
    early = choose(records, _cuts(99, 150))
    assert (early.record.name, early.after) == ("a", True)
    assert choose(records, _cuts(400, 400), "a").record.name == "a"


def test_lost_ranges_are_avoided_or_named() -> None:
    """A backup after the moment needs no log; if there is none, the ranges are those that retention has deleted."""
    records = [_record("a", 100), _record("b", 200)]
    assert choose(records, _cuts(150, 150, begins=120)).record.name == "b"
    start = choose(records[:1], _cuts(150, 150, begins=120))
    assert [str(lost) for lost in start.lost] == [f"t, partition {n}, offsets 100 to 119" for n in range(2)]
    assert choose(records[:1], _cuts(150, 150, begins=100)).lost == ()


@pytest.mark.parametrize("command", ["true {name} '", "  ", "rm -r /backups", "{name}"])
def test_a_command_without_the_backups_name_is_refused(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """It would remove the same files for each backup, maybe all of them; one that isn't a command is refused too."""
    monkeypatch.setenv("CHIMERA_BACKUP__REMOVE_COMMAND", command)
    with pytest.raises(
        ConfigError, match=r"REMOVE_COMMAND: expected a command, .*with \{name\} in one of its arguments"
    ):
        load_settings()


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("/no/such/program {name}", "/no/such/program a: No such file or directory"),
        ("/dev/null {name}", "/dev/null a: Permission denied"),
        ("false {name}", "false a: exit code 1: "),
        (r"sh -c 'printf \\377 >&2; exit 3' {name}", "exit code 3: \ufffd"),
    ],
)
def test_a_command_that_fails_is_one_line(command: str, problem: str) -> None:
    """The backup stays in the list, and nothing is noted."""
    settings = Settings(backup=BackupSettings(remove_command=command))
    with pytest.raises(HaltError) as failed:
        remove(settings, _record("a", destination="disk:backups"))
    assert problem in str(failed.value)
    assert str(failed.value).endswith("; the backup stays in the list")
    assert len(str(failed.value).splitlines()) == 1


@pytest.mark.parametrize(
    "record",
    [
        _record("a", events={"began"}),
        _record("a", events={"began", "failed"}),
        _record("a", events={"began", "done", "pruned"}),
        _record("a", whole=False),
    ],
    ids=["running", "failed", "pruned", "partial"],
)
def test_only_whole_backups_are_recovered_from(record: BackupRecord) -> None:
    """Others lack rows."""
    with pytest.raises(UnreachableError, match="there is none"):
        choose([record], _cuts(1))


def test_a_topic_that_was_created_anew_has_other_offsets() -> None:
    """The message names the topic and the backup."""
    with pytest.raises(UnreachableError, match="topic t was created anew since backup a"):
        choose([_record("a")], _cuts(1, topic_id="AAAAAAAAAAAAAAAAAAAAAg"))


def test_pruning_keeps_chains_and_the_newest() -> None:
    """A base goes when no kept backup needs it, and those that need it go first."""
    records = [
        _record("full1", days=30),
        _record("incr1", base="full1", days=29),
        _record("full2", days=20),
        _record("incr2", base="full2", days=15),
        _record("incr3", base="incr2", days=13),
        _record("broken", days=2, events={"began", "failed"}),
    ]
    plan = plan_pruning(records, 14, _NOW)
    assert [each.name for each in plan.removed] == ["broken", "incr1", "full1"]
    assert ([each.name for each in plan.needed], [each.name for each in plan.kept]) == (["full2", "incr2"], ["incr3"])
    assert [each.name for each in plan_pruning(records, 0, _NOW).kept] == ["incr3"]
    assert chain_of("incr3", records) == ("incr3", "incr2", "full2")


def test_figures_find_other_counts_and_other_content() -> None:
    """A day that somebody changed during the backup has bounds; rows above the offsets aren't compared."""
    day = {"rows": 5, "checksum": "77", "above": 2, "parts": "1"}
    steady = compare_takes({"t": {"d": day}}, {"t": {"d": day | {"above": 9}}})["t"]
    assert steady["d"]["stable"]
    assert differences(steady, {"d": day | {"above": 0}}) == []
    assert differences(steady, {"d": day | {"checksum": "78"}}) == [
        "d: 5 rows as expected, but another checksum: other content"
    ]
    assert differences(steady, {}) == ["d: 0 rows, expected 5"]
    assert differences(steady, {"d": day, "e": day | {"rows": 0}}) == []
    assert differences(steady, {"d": day, "e": day}) == ["e: 5 rows, expected none"]
    moved = compare_takes({"t": {"d": day}}, {"t": {"d": day | {"rows": 8, "checksum": "9"}}})["t"]
    assert differences(moved, {"d": day | {"rows": 6, "checksum": "8"}}) == []
    assert differences(moved, {"d": day | {"rows": 9}}) == ["d: 9 rows, expected 5 to 8"]


def test_hours_close_by_events_and_in_idle_partitions_by_time() -> None:
    """As the rollup does it: grace behind the newest event; after the idle time, the clock goes on."""
    settings = RollupSettings(grace_seconds=600, idle_seconds=300)
    ten = 10 * _HOUR_MS
    assert closed_before(ten + 599_999, ten + 600_000, ten + 600_000, settings) == 9
    assert closed_before(ten + 600_000, ten + 600_000, ten + 600_000, settings) == 10
    assert closed_before(ten, ten, ten + _HOUR_MS + 599_999, settings) == 10
    assert closed_before(ten, ten, ten + _HOUR_MS + 600_000, settings) == 11
    assert closed_before(ten, None, ten + 10 * _HOUR_MS, settings) == 19
    assert closed_before(ten + 50 * _HOUR_MS, ten, ten + 1, settings) == 9  # an event of tomorrow


def test_a_destination_is_written_for_the_server() -> None:
    """Keys are part of the statement, and never of the place; a name can't leave its folder."""
    assert Destination.configured(BackupSettings()).of("a-1", BackupSettings()) == "Disk('backups', 'a-1')"
    bucket = BackupSettings.model_validate(
        {"s3_url": "https://s3.example/b/", "s3_access_key": "k'", "s3_secret_key": "s\\"}
    )
    destination = Destination.configured(bucket)
    assert destination.place == "s3:https://s3.example/b"
    assert destination.of("a", bucket) == "S3('https://s3.example/b/a', 'k\\'', 's\\\\')"
    assert destination.of("a", BackupSettings()) == "S3('https://s3.example/b/a')"
    with pytest.raises(ConfigError, match="expected a name"):
        destination.of("../a", bucket)
