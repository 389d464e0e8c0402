"""Words beside the numbers that `chimera rollup verify` and `chimera demo` print."""

from collections import Counter

import pytest
from rich.console import Console

from pipeline.cli.demo import demo
from pipeline.cli.demo_output import show_counts
from pipeline.cli.rollup_output import print_report
from pipeline.operations.demo import Tally
from pipeline.rollup.verify import Report


def test_verify_names_every_cause_of_late_events_in_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """Offsets that were moved back are named beside a repair; verify can't tell which of them it was."""
    print_report(Report(hours=1, rows=5, late_included=3))
    words = capsys.readouterr().out
    assert "3 rows include events that are counted as late" in words
    assert "after `chimera rollup repair`, or after the group's offsets were moved back" in words
    print_report(Report(hours=1, rows=5))
    assert "late" not in capsys.readouterr().out


def test_the_demo_says_that_its_producer_limits_its_speed(capsys: pytest.CaptureFixture[str]) -> None:
    """Its table and its help say so, since the benchmark of the worker has several times as many rows a second."""
    counts = Counter({"ui_events": 1})
    show_counts(Console(width=200), Tally(counts, counts, Counter(), 1.0))
    assert "producer sets the time" in " ".join(capsys.readouterr().out.split())
    assert demo.help
    assert "rows_per_s is limited by the producer" in " ".join(demo.help.split())
