"""`chimera doctor` without servers: exit codes, and a wrong configuration that is named before any server is asked."""

from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.config import env_name
from pipeline.devstack.stack import DEVELOPMENT_HASH_KEY
from pipeline.errors import ChimeraError, ConfigError, HaltError, UnavailableError
from pipeline.operations.doctor.results import CheckResult, Grade, exit_code_of, fail, found_by, ok, warn


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(ConfigError("x"), 78, id="configuration"),
        pytest.param(UnavailableError("x"), 69, id="no answer"),
        pytest.param(HaltError("x"), 1, id="refusal"),
    ],
)
def test_a_failed_check_is_a_line_and_an_exit_code(error: ChimeraError, code: int) -> None:
    """The other findings stay; the gravest code counts."""

    def check() -> Iterator[CheckResult]:
        yield ok("a", "fine")
        raise error

    found = list(found_by("a", check, "mend it"))
    assert [finding.verdict for finding in found] == [Grade.OK, Grade.FAIL]
    assert exit_code_of([*found, fail("b", "bad")]) == code


def test_warnings_are_no_failure() -> None:
    """Exit code 0."""
    assert exit_code_of([ok("a", "fine"), warn("b", "look at it")]) == 0
    assert exit_code_of([]) == 0


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        pytest.param(env_name("log", "level"), "LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'", id="a wrong setting"),
        pytest.param(env_name("privacy", "hash_key"), None, "openssl rand -hex 32", id="no hash key"),
        pytest.param(
            env_name("topics", "file"), "/no/such/topics.yaml", "expected the declaration", id="no topics.yaml"
        ),
    ],
)
def test_a_wrong_configuration_ends_with_78(
    name: str, value: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server is asked."""
    monkeypatch.setenv(env_name("privacy", "hash_key"), DEVELOPMENT_HASH_KEY)
    monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 78
    assert words in result.stdout
    assert result.stdout.splitlines()[-1].startswith("fail  ")
