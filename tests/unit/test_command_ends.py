"""Ends of commands that never reach a server: odd options, and Ctrl-C."""

from pathlib import Path
from typing import Any

import pytest
from support.commands import command

from pipeline.cli import verify as verify_module


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("replay ui_events --day 1969-12-31", "expected a day from 1970-01-01 to 2149-06-06"),
        ("replay ui_events --day 0001-01-01", "expected a day from 1970-01-01 to 2149-06-06"),
        ("replay ui_events --day 2149-06-07", "expected a day from 1970-01-01 to 2149-06-06"),
        ("replay ui_events --from 0:5 --from 0:7", "expected --from once for each partition"),
        (f"replay ui_events --to {'9' * 5000}", "expected an offset, PARTITION:OFFSET, or a time"),
        (f"replay ui_events --from 0:{'9' * 5000}", "expected an offset, PARTITION:OFFSET, or a time"),
        ("replay ui_events --into ui_events", "expected --into with another table than ui_events"),
        (f"dlq show --at ui_events:0:{'9' * 19}", "expected topic:partition:offset"),
        ("restore --to 0001-01-01T00:00+14:00", "expected a time such as"),
        ("tap ui_events --since 99999999w", "expected ISO 8601"),
        ("backup prune --keep-days 1e12", "is not in the range"),
    ],
)
def test_an_option_that_would_mean_something_else_is_refused(
    words: str, problem: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ClickHouse takes every day before 1970 for the first of 1970: a rewrite would replace that one.

    A replay into the family's own table would leave session_stats as it is.
    """
    ended = command(capsys, monkeypatch)(*words.split())
    assert (ended.returncode, ended.stdout) == (2, "")
    assert problem in " ".join(ended.stderr.split())


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("family new orders --folder /proc/nowhere", "/proc/nowhere: No such file or directory"),
        (f"family new {'a' * 250} --folder {{folder}}", "File name too long"),
    ],
)
def test_a_folder_that_does_not_take_the_files_is_one_line(
    words: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only file system, or a name that it can't have."""
    ended = command(capsys, monkeypatch)(*words.format(folder=tmp_path).split())
    assert (ended.returncode, ended.stdout) == (78, "")
    assert problem in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_an_interrupted_command_has_an_exit_code_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 of `verify` says that records are lost."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify_module, "compare", interrupted)
    assert command(capsys, monkeypatch)("verify") == (130, "", "chimera: interrupted\n")
