"""Output of the commands for people and for pipes: nothing is cut; times, days and rates are as people write them."""

import logging
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import click
import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli import COMMANDS, cli
from pipeline.cli.rates import rate_text
from pipeline.cli.replay_options import BoundType
from pipeline.cli.rollup_output import print_report
from pipeline.cli.times import DayType, TimeType
from pipeline.config import env_name
from pipeline.logs import Seldom
from pipeline.rollup.audit import Difference, Hour, Kind, Values
from pipeline.rollup.verify import Report
from pipeline.worker.assigned import assigned_topics

_WIDTH = 80


def test_a_pipe_gets_whole_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path longer than any terminal is one word in the output of `chimera config show`."""
    path = str(tmp_path / ("long" * 60))
    monkeypatch.setenv(env_name("schemas", "directory"), path)
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(cli, ["config", "show"])
    assert path in result.stdout.split()


def _groups() -> list[list[str]]:
    context = click.Context(cli)
    return [[], *([name] for name in COMMANDS if isinstance(cli.get_command(context, name), click.Group))]


@pytest.mark.parametrize("words", _groups(), ids=lambda words: " ".join(["chimera", *words]))
def test_help_lists_whole_sentences(words: list[str]) -> None:
    """No line of the help is longer than a terminal, and no sentence ends in three dots."""
    text = CliRunner().invoke(cli, [*words, "--help"], terminal_width=_WIDTH).stdout
    listed = text.partition("Commands:")[2].partition("Examples:")[0]
    assert listed.strip()
    assert "..." not in listed
    assert max(map(len, text.splitlines())) <= _WIDTH


@pytest.mark.parametrize(
    ("text", "distance"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("1h", timedelta(hours=1)),
        ("2d", timedelta(days=2)),
        ("1w", timedelta(weeks=1)),
    ],
)
def test_a_time_may_be_a_distance_from_now(text: str, distance: timedelta) -> None:
    """`--since 1h` and `--from 1h` mean an hour ago."""
    bound = BoundType().convert(text, None, None).time
    for time in (TimeType().convert(text, None, None), bound):
        assert time is not None
        assert abs(datetime.now(UTC) - distance - time) < timedelta(minutes=1)


@pytest.mark.parametrize("text", ["", "h", "1y", "-1h", "1.5h", "999999999w", "24.11.2026", "2026-13-01"])
def test_another_text_is_no_time(text: str) -> None:
    """The message gives an example of each form."""
    with pytest.raises(click.BadParameter, match=r"expected ISO 8601, such as .*, or a time ago, such as 1h"):
        TimeType().convert(text, None, None)


def test_a_day_may_be_named() -> None:
    """Days are in UTC, and within the range of the column."""
    today = datetime.now(UTC).date()
    days = DayType(date(1970, 1, 1), date(2106, 2, 7))
    assert days.convert("today", None, None) - today in {timedelta(0), timedelta(1)}
    assert days.convert("yesterday", None, None) - today in {timedelta(-1), timedelta(0)}
    assert days.convert("2026-11-24", None, None) == date(2026, 11, 24)
    for text in ("tomorrow", "2106-02-08", "24.11.2026"):
        with pytest.raises(click.BadParameter, match="expected a day"):
            days.convert(text, None, None)


def test_a_short_run_has_no_rate() -> None:
    """A rate over some milliseconds says nothing; from a second on there is one."""
    assert rate_text(5, 0.004, "events") == ""
    assert rate_text(5000, 2.0, "events") == ", 2,500 events/s"


def test_consuming_names_topics_and_partitions() -> None:
    """Runs of partitions are written as a range."""
    assigned = [("b", 3), ("a", 0), ("b", 0), ("b", 1), ("b", 5), ("b", 6)]
    assert assigned_topics(assigned) == "a 0, b 0-1 3 5-6"
    assert assigned_topics([]) == ""


def test_a_rebalance_is_no_warning() -> None:
    """Each worker that comes or goes would cause one; tests/support/private_names_group.py has the text, too."""
    text = "Heartbeat failed for group %s because it is rebalancing"
    record = logging.LogRecord("aiokafka.consumer", logging.WARNING, __file__, 1, text, ("chimera",), None)
    assert not Seldom().filter(record)


def test_differences_are_readable_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """Each row has a line with its hour and its whole session id, and one for each column that differs."""
    session = UUID("0b5e2f4c-7d1a-4c36-9e58-2f6b1a93c7d4")
    hour = Hour(1_795_000_000 // 3600 * 3600, date(2026, 11, 18), 9, 1)
    found = Values(4_294_967_295, np.float32(0.1), np.float32(0.33333334), 4_294_967_295, 3599)
    expected = Values(10, np.float32(0.2), np.float32(0.16666667), 9, 3598)
    differing = Difference(hour, session, 1, found, expected)
    split = Difference(hour, session, 2, found, expected)
    report = Report(
        hours=1, rows=1, found=Counter({Kind.DIFFERING: 1, Kind.SPLIT: 1}), listed=[(differing, True), (split, False)]
    )
    print_report(report)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= _WIDTH
    assert sum(str(session) in line for line in lines) == 2
    assert any("4294967295" in line and "10" in line for line in lines)
