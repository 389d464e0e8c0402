"""The alerts: each fires at its trouble and not beside it, tells its meaning, and has a section in the runbook."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
_FILE = ROOT / "alerts/chimera.rules.yml"
_RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for rule in yaml.safe_load(_FILE.read_text(encoding="utf-8"))["groups"][0]["rules"]
}
_P = "chimera_monitor_"
_LAG = f'{_P}lag_records{{family="ui_events",partition="0"}}'
_BUILD = f'{_P}build_info{{version="0.2.0"}}'
_UP = {f'{_P}up{{server="kafka"}}': "1x70", f'{_P}up{{server="clickhouse"}}': "1x70"}
_STATE = f'{_P}consumption{{family="ui_events",partition="0",{_P}consumption="%s"}}'
_EVENT = f'{_P}table_newest_event_timestamp_seconds{{table="ui_events"}}'
_SECONDS = f'{_P}lag_seconds{{family="ui_events",partition="0"}}'
_UNOWNED = f'{_P}unowned_partitions{{family="ui_events"}}'
_MEMBERS = f"{_P}group_members"
_BEHIND = f'{_P}trouble{{trouble="rollup-behind",where="session_stats",severity="warning"}}'
_LETTERS = f'{_P}dead_letters_oldest_seconds{{family="ui_events"}}'
_FREE, _TOTAL = f'{_P}disk_free_bytes{{disk="default"}}', f'{_P}disk_total_bytes{{disk="default"}}'
_PARTS = f'{_P}table_most_parts{{table="ui_events"}}'
_LOST = f'{_P}lost_records{{family="ui_events"}}'
_OLD = f'{_P}trouble{{trouble="%s",where="backup",severity="warning"}}'
_MISSING = f'{_P}trouble{{trouble="%s-missing",where="ui_events",severity="critical"}}'
_LEADERLESS = f'{_P}leaderless_partitions{{family="ui_events"}}'
_FLAPS = f'{_P}trouble{{trouble="%s",where="worker at 10.4.0.17",severity="warning"}}'
_HALTED = f'{_P}trouble{{trouble="%s",where="worker at 10.4.0.17:6066",severity="critical"}}'
_REJECTS = f'{_P}trouble{{trouble="%s",where="ui_events",severity="critical"}}'

# Series of a sample every minute, for an hour: those that fire, and those that come near and don't.
_CASES: dict[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "ChimeraKafkaAway": ({f'{_P}up{{server="kafka"}}': "0x70"}, _UP),
    "ChimeraClickHouseAway": ({f'{_P}up{{server="clickhouse"}}': "0x70"}, _UP),
    "ChimeraNoWorker": ({_MEMBERS: "0x70", _LAG: "5x70"}, {_MEMBERS: "0x70", _LAG: "0x70"}),
    "ChimeraWorkerAway": ({'up{job="production/chimera-worker"}': "0x70"}, {'up{job="chimera-monitor"}': "0x70"}),
    "ChimeraWorkerHalted": ({_HALTED % "worker-halted": "1x70"}, {_HALTED % "flapping": "1x70"}),
    "ChimeraWorkerNotReady": ({"chimera_ready": "0x70"}, {"chimera_ready": "1x57 0x4 1x9"}),
    "ChimeraWorkerFlaps": ({_FLAPS % "flapping": "1x70"}, {_FLAPS % "no-worker": "1x70"}),
    "ChimeraPartitionWithoutLeader": ({_LEADERLESS: "1x70"}, {_LEADERLESS: "0x70"}),
    "ChimeraPartitionWithoutWorker": (
        {_UNOWNED: "1x70", _MEMBERS: "2x70", _LAG: "5x70"},
        {_UNOWNED: "1x70", _MEMBERS: "2x70", _LAG: "0x70"},
    ),
    "ChimeraStalled": ({_STATE % "stalled": "1x70"}, {_STATE % "stalled": "0x70", _STATE % "warning": "1x70"}),
    "ChimeraLagGrows": ({_SECONDS: "60+30x70"}, {_SECONDS: "900x70"}),
    "ChimeraNothingStored": ({_REJECTS % "nothing-stored": "0x57 1x9"}, {_REJECTS % "stalled": "1x70"}),
    "ChimeraRejects": ({_REJECTS % "rejects": "1x70"}, {_REJECTS % "stalled": "1x70"}),
    "ChimeraTableStale": ({_EVENT: "0x70"}, {_EVENT: "0+60x70"}),
    "ChimeraRecordsLost": ({_LOST: "1x70"}, {_LOST: "0x70"}),
    "ChimeraRetentionNear": ({_REJECTS % "retention-near": "1x70"}, {_REJECTS % "falling-behind": "1x70"}),
    "ChimeraDeadLettersUnsettled": ({_LETTERS: "90000x70"}, {_LETTERS: "80000x70"}),
    "ChimeraDeadLettersUnread": (_UP, {**_UP, _LETTERS: "0x70"}),
    "ChimeraRollupBehind": ({_BEHIND: "1x70"}, {_BEHIND: "1x41 0x4 1x19"}),
    "ChimeraLateEvents": ({"chimera_rollup_late_ratio": "0.2x70"}, {"chimera_rollup_late_ratio": "0x50 0.2x5 0x15"}),
    "ChimeraManyParts": ({_PARTS: "600x70"}, {_PARTS: "400x70"}),
    "ChimeraDiskFull": ({_FREE: "5x70", _TOTAL: "100x70"}, {_FREE: "20x70", _TOTAL: "100x70"}),
    "ChimeraTopicMissing": ({_MISSING % "topic": "1x70"}, {_MISSING % "table": "1x70"}),
    "ChimeraTableMissing": ({_MISSING % "table": "1x70"}, {_MISSING % "topic": "1x70"}),
    "ChimeraBackupTooOld": (
        {_OLD % "backup-too-old": "1x70", f"{_P}backup_age_seconds": "9000+60x70"},
        {_OLD % "backup-unread": "1x70", f"{_P}backup_failed": "0x70"},
    ),
    "ChimeraBackupFailed": ({f"{_P}backup_failed": "1x70"}, {f"{_P}backup_failed": "0x70"}),
    "ChimeraMonitorAway": ({_MEMBERS: "1x70"}, {_BUILD: "1x70"}),
}


def test_each_alert_says_what_it_means_and_what_to_do() -> None:
    """It has a severity, a sentence for users, and a section of the runbook."""
    sections = set(re.findall(r"^## (.*)$", (ROOT / "docs/runbook.md").read_text(encoding="utf-8"), re.MULTILINE))
    for name, rule in _RULES.items():
        assert rule["labels"]["severity"] in {"warning", "critical"}, name
        assert rule["annotations"]["summary"].endswith("."), name
        page, _, section = rule["annotations"]["runbook"].partition("#")
        assert (page, section in sections) == ("docs/runbook.md", True), name


def test_each_alert_has_a_case() -> None:
    """A new alert needs series that fire it, and series that don't."""
    assert _CASES.keys() == _RULES.keys()


def test_alerts_use_metrics_that_there_are() -> None:
    """Each name in an expression is a metric of the monitor or of a worker."""
    known = "".join((ROOT / f"docs/{page}.md").read_text(encoding="utf-8") for page in ("monitor", "metrics"))
    for name, rule in _RULES.items():
        for metric in set(re.findall(r"chimera_\w+", rule["expr"])):
            assert f"`{metric}" in known, f"{name}: {metric}"


def _case(name: str, series: Mapping[str, str], *, fires: bool) -> dict[str, Any]:
    rule, found = _RULES[name], []
    if fires:
        labels = yaml.safe_load(_FIRED[name]) if name in _FIRED else {"family": "ui_events"}
        found = [{"exp_labels": {**labels, **rule["labels"]}, "exp_annotations": rule["annotations"]}]
    return {
        "interval": "1m",
        "input_series": [{"series": metric, "values": values} for metric, values in series.items()],
        "alert_rule_test": [{"eval_time": "1h", "alertname": name, "exp_alerts": found}],
    }


_FIRED = {
    "ChimeraKafkaAway": "{server: kafka}",
    "ChimeraClickHouseAway": "{server: clickhouse}",
    "ChimeraNoWorker": "{}",
    "ChimeraWorkerAway": "{job: production/chimera-worker}",
    "ChimeraWorkerHalted": "{where: 'worker at 10.4.0.17:6066'}",
    "ChimeraWorkerNotReady": "{}",
    "ChimeraWorkerFlaps": "{where: worker at 10.4.0.17}",
    "ChimeraRejects": "{where: ui_events}",
    "ChimeraLateEvents": "{}",
    "ChimeraNothingStored": "{where: ui_events}",
    "ChimeraRetentionNear": "{where: ui_events}",
    "ChimeraTableStale": "{table: ui_events}",
    "ChimeraDeadLettersUnread": "{}",
    "ChimeraRollupBehind": "{}",
    "ChimeraManyParts": "{table: ui_events}",
    "ChimeraDiskFull": "{disk: default}",
    "ChimeraTopicMissing": "{where: ui_events}",
    "ChimeraTableMissing": "{where: ui_events}",
    "ChimeraBackupTooOld": "{}",
    "ChimeraBackupFailed": "{}",
    "ChimeraMonitorAway": "{}",
}
"""Labels of an alert that has others than the family."""


def test_alerts_fire_at_their_trouble_alone(tmp_path: Path) -> None:
    """`promtool test rules` evaluates each alert over series that fire it and series that don't."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine: install Debian's package prometheus")
    cases = [
        _case(name, series, fires=fires)
        for name, both in _CASES.items()
        for series, fires in zip(both, (True, False), strict=True)
    ]
    document = {"rule_files": [str(_FILE)], "evaluation_interval": "5m", "tests": cases}
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
