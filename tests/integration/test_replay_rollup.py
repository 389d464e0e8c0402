"""session_stats follows a replay of ui_events."""

from pathlib import Path

import pytest
from support.commands import Chimera
from support.replays import PARTITIONS, UiEvents, close_hours, differences
from support.session_stats import DAY, Row, store_rows, stored_rows, uuid
from support.source_files import avro_values, write_avro

from pipeline.config import Settings
from pipeline.errors import HaltError

pytestmark = pytest.mark.integration

_MIDNIGHT = 491_616
"""Hours from 1970 to the midnight in which the sample begins."""
_FIRST_HOUR = f"{DAY}T00:00Z"


@pytest.fixture
def log(settings: Settings) -> UiEvents:
    log = UiEvents(settings)
    log.produce(200)
    return log


def test_closed_hours_are_brought_in_line(log: UiEvents, replay: Chimera) -> None:
    """By a fill and by a rewrite; open hours stay the rollup's."""
    close_hours(log, _MIDNIGHT + 2)
    filled = replay("--execute", "--json")
    assert filled.returncode == 0, filled.stderr
    stats = filled.facts["session_stats"][str(DAY)]
    assert stats["rows"] > 0
    assert (stats["closed_hours"], stats["open_hours"]) == ([_FIRST_HOUR], [])
    assert differences(log) == 0
    with log.client() as client:
        client.execute("ALTER TABLE session_stats UPDATE events_count = 0 WHERE 1 SETTINGS mutations_sync = 2")
    assert differences(log) > 0
    made = replay("--day", str(DAY), "--execute", "--json")
    assert made.facts["session_stats"][str(DAY)]["rows"] > 0
    assert differences(log) == 0


def test_open_hours_are_left_to_the_rollup(log: UiEvents, replay: Chimera) -> None:
    """It goes by the log, not by the table."""
    close_hours(log, _MIDNIGHT)
    filled = replay("--execute", "--json")
    stats = filled.facts["session_stats"][str(DAY)]
    assert (stats["closed_hours"], stats["open_hours"], stats["rows"]) == ([], [_FIRST_HOUR], 0)
    assert differences(log) > 0


def test_what_is_left_to_do_is_said(log: UiEvents, replay: Chimera) -> None:
    """Because the user wants it so, or because the rollup hasn't stored a snapshot yet."""
    left = replay("--from", "0:0", "--to", "1:0", "--no-rollup", "--execute")
    assert left.returncode == 0
    assert f"run `chimera rollup repair --day {DAY} --execute`" in left.stderr
    failed = replay("--execute")
    assert failed.returncode == 0
    assert "because: " in failed.stderr
    assert "no snapshot of the rollup yet" in failed.stderr
    with log.client() as client:
        assert client.execute("SELECT count() FROM session_stats") == [(0,)]


def test_the_rollup_does_not_know_the_rows_of_a_file(log: UiEvents, replay: Chimera, tmp_path: Path) -> None:
    """Its closed hours are brought in line all the same; what is left to do for open ones is said."""
    values = avro_values(log.family, log.events)
    first, second = (
        write_avro(tmp_path / f"{number}.avro", log.family.schema.raw, values[number::2]) for number in range(2)
    )
    close_hours(log, _MIDNIGHT)
    while_open = replay("--from-file", str(first), "--execute")
    assert f"when they are closed, run `chimera rollup repair --day {DAY} --execute`" in while_open.stdout
    assert differences(log) > 0
    log.produce(PARTITIONS)
    close_hours(log, _MIDNIGHT + 2)
    done = replay("--from-file", str(second), "--despite-unknown", "--execute", "--json")
    assert done.facts["session_stats"][str(DAY)]["closed_hours"] == [_FIRST_HOUR]
    assert log.stored() == (200, 200)
    assert differences(log) == 0


def test_rows_whose_events_are_gone_stay(log: UiEvents, replay: Chimera) -> None:
    """Hours that a replay doesn't touch keep their rows, and so do touched ones that count more events than there are.

    As after a table was dropped whose first records retention has deleted: nothing could compute these rows again.
    """
    close_hours(log, _MIDNIGHT + 24)
    untouched, touched = (Row(_MIDNIGHT + hour, uuid(7), 1, 0, 0, 1, 0) for hour in (12, 0))
    with log.client() as client:
        store_rows(client, [untouched])
        replay("--from", "0:0", "--to", "0:50", "--to", "1:0", "--execute")
        assert untouched in stored_rows(client)
        assert len(stored_rows(client)) > 1
        store_rows(client, [touched])
        before = stored_rows(client)
        for how in ((), ("--day", str(DAY))):
            made = replay(*how, "--execute", "--json")
            stats = made.facts["session_stats"][str(DAY)]
            assert (stats["closed_hours"], stats["left_hours"], stats["rows"]) == ([], [_FIRST_HOUR], 0)
        assert stored_rows(client) == before


def test_a_replay_that_fails_says_what_it_has_done(log: UiEvents, replay: Chimera) -> None:
    """Its rows are counted, and the day is named that is left to repair; the failure comes last."""
    close_hours(log, _MIDNIGHT + 2)
    with log.client() as client:
        client.execute(
            "CREATE MATERIALIZED VIEW fails ENGINE=MergeTree ORDER BY n "
            "SETTINGS non_replicated_deduplication_window = 9 AS SELECT throwIf(_partition = 0) AS n FROM ui_events"
        )
    failed = replay("--execute")
    assert failed.returncode == HaltError.exit_code
    assert "100 rows inserted into ui_events" in failed.stdout
    *_, left, last = failed.stderr.splitlines()
    assert f"{DAY}, because: the replay failed before its end; run `chimera rollup repair" in left
    assert "none of its rows alone" in last
