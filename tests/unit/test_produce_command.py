"""`chimera produce` without a broker: its checks, its messages about bad lines, and its exit codes."""

from pathlib import Path

import click
import orjson
import pytest
from click.testing import CliRunner, Result

from pipeline.cli import cli
from pipeline.devstack.ports import free_port
from pipeline.errors import ChimeraError, UnavailableError

EXAMPLES = Path(__file__).parents[2] / "examples"
GOOD = (EXAMPLES / "ui_events.jsonl").read_bytes()


def produce(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(cli, ["produce", *arguments], input=stdin)


def test_examples_pass_the_check() -> None:
    """The last line has the number of events."""
    result = produce("ui_events", "--file", str(EXAMPLES / "ui_events.jsonl"), "--dry-run")
    assert result.exit_code == 0
    assert result.stdout.startswith("checked 5 events in ")
    assert result.stdout.endswith(": ui_events 5\n")


def test_bad_lines_are_listed_with_number_and_reason() -> None:
    """Blank lines count, so line numbers are those of an editor."""
    bad_latency = orjson.dumps({**orjson.loads(GOOD.splitlines()[0]), "latency_ms": -1})
    stdin = GOOD + b"\n{oops\n" + bad_latency + b"\n[]\n"
    result = produce("ui_events", "--file", "-", "--dry-run", stdin=stdin)
    assert isinstance(result.exception, ChimeraError)
    assert result.exception.exit_code == 1
    assert str(result.exception) == "3 of 8 lines are bad: nothing was published"
    assert result.stdout == ""
    not_json, out_of_bounds, no_object = result.stderr.splitlines()
    assert not_json.startswith("line 7: not JSON: ")
    assert (
        out_of_bounds
        == "line 8: ui_events: latency_ms: expected a whole number from 0 to 4294967295, got a whole number"
    )
    assert no_object == "line 9: ui_events: expected an object of fields, got a list"


def test_good_lines_can_be_taken_all_the_same() -> None:
    """The exit code is still 1 because of the skipped lines."""
    result = produce("ui_events", "--file", "-", "--dry-run", "--skip-bad", stdin=b"{}\n" + GOOD)
    assert ": ui_events 5\n" in result.stdout
    assert str(result.exception) == "1 of 6 lines are bad and were skipped"


def test_a_file_of_nothing_but_bad_lines_is_told_briefly() -> None:
    """Only twenty problems are listed; the count is complete."""
    result = produce("ui_events", "--file", "-", "--dry-run", stdin=b"x\n" * 25)
    assert len(result.stderr.splitlines()) == 21
    assert result.stderr.endswith("... and 5 more\n")
    assert str(result.exception) == "25 of 25 lines are bad: nothing was published"


def test_sample_events_are_counted_by_family() -> None:
    """Only the requested families occur."""
    result = produce("--sample", "200", "--families", "ui_events, episodes", "--hours", "0.5", "--dry-run")
    assert result.exit_code == 0
    assert result.stdout.startswith("checked 200 events in ")
    assert "ui_events 1" in result.stdout
    assert "episodes " in result.stdout
    assert "llm_events" not in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="nothing"),
        pytest.param(["ui_events"], id="family-without-file"),
        pytest.param(["--file", "-"], id="file-without-family"),
        pytest.param(["ui_events", "--file", "-", "--sample", "3"], id="both"),
        pytest.param(["ui_events", "--file", "/no/such/file"], id="no-such-file"),
        pytest.param(["--sample", "0"], id="no-events"),
        pytest.param(["--sample", "1", "--hours", "0"], id="no-time"),
        pytest.param(["--sample", "1", "--hours", "87601"], id="too-long-ago"),
        pytest.param(["--sample", "1", "--hours", "inf"], id="since-ever"),
        pytest.param(["--sample", "1", "--hours", "nan"], id="no-number"),
        pytest.param(["--sample", "1", "--families", ","], id="no-families"),
        pytest.param(["--sample", "1", "--skip-bad"], id="skip-bad-of-a-sample"),
        pytest.param(["ui_events", "--file", "-", "--families", "ui_events"], id="families-of-a-file"),
        pytest.param(["ui_events", "--file", "-", "--hours", "24"], id="hours-of-a-file"),
        pytest.param(["ui_events", "--file", "-", "--seed", "1"], id="seed-of-a-file"),
    ],
)
def test_wrong_usage_is_explained(arguments: list[str]) -> None:
    """Wrong options end with click's exit code 2."""
    result = produce(*arguments, "--dry-run")
    assert result.exit_code == click.UsageError.exit_code
    assert "Error: " in result.stderr


def test_the_oldest_sample_is_in_range() -> None:
    """Sample events of ten years are valid."""
    assert produce("--sample", "100", "--hours", "87600", "--dry-run").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["orders", "--file", "-"], id="file"),
        pytest.param(["--sample", "1", "--families", "ui_events,orders"], id="sample"),
    ],
)
def test_an_unknown_family_is_named(arguments: list[str]) -> None:
    """The exit code is 78, and the message lists the families."""
    error = produce(*arguments, "--dry-run").exception
    assert isinstance(error, ChimeraError)
    assert error.exit_code == 78
    assert "no event family 'orders'; expected one of bench_runs, " in str(error)


def test_an_unreachable_broker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is 69, and the message has the broker's address."""
    monkeypatch.setenv("CHIMERA_KAFKA__BOOTSTRAP_SERVERS", address := f"127.0.0.1:{free_port()}")
    error = produce("--sample", "1").exception
    assert isinstance(error, UnavailableError)
    assert error.exit_code == 69
    assert str(error).startswith(f"Kafka at {address} is not available: ")
