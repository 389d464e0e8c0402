"""Settings from the environment, and the one line that explains a wrong one."""

import os
import subprocess
import sys

import pytest

from pipeline.config import ENV_PREFIX, Settings, env_names, load_settings
from pipeline.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith(ENV_PREFIX):
            monkeypatch.delenv(name)


def _complaint(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    return str(caught.value)


def test_every_setting_has_a_default() -> None:
    """Without any variable the settings point at the usual ports of this machine."""
    settings = load_settings()
    assert settings.kafka.bootstrap_servers == "127.0.0.1:9092"
    assert settings.clickhouse.address == "127.0.0.1:9000"


def test_a_variable_of_every_section_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two underscores join section and key, upper and lower case are equal, and values are converted."""
    monkeypatch.setenv("CHIMERA_KAFKA__GROUP_ID", "other")
    monkeypatch.setenv("chimera_clickhouse__secure", "yes")
    monkeypatch.setenv("CHIMERA_WORKER__COMMIT_INTERVAL_SECONDS", "2.5")
    settings = load_settings()
    assert settings.kafka.group_id == "other"
    assert settings.clickhouse.address == "127.0.0.1:9440"
    assert settings.worker.commit_interval_seconds == 2.5


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("CHIMERA_KAFKA__BOOTSTRAP_SERVER", "did you mean CHIMERA_KAFKA__BOOTSTRAP_SERVERS?"),
        ("CHIMERA_KAFAK__GROUP_ID", "did you mean CHIMERA_KAFKA__GROUP_ID?"),
        ("CHIMERA_KAFKA_GROUP_ID", "did you mean CHIMERA_KAFKA__GROUP_ID?"),
        ("CHIMERA_KAFKA__GROUP_ID__X", "did you mean CHIMERA_KAFKA__GROUP_ID?"),
        ("chimera_kafak__group_id", "did you mean CHIMERA_KAFKA__GROUP_ID?"),
        ("CHIMERA_KAFKA", "expected CHIMERA_<SECTION>__<KEY>"),
        ("CHIMERA_COLOUR", "expected CHIMERA_<SECTION>__<KEY>"),
    ],
    ids=["key", "section", "one underscore", "too deep", "lower case", "section alone", "neither"],
)
def test_an_unknown_variable_is_an_error(name: str, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt name is an error; the line gives it and the closest setting."""
    assert _complaint(monkeypatch, **{name: "x"}) == f"{name}: no such setting; {advice}"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CHIMERA_CLICKHOUSE__PORT", "65536", "at most 65535"),
        ("CHIMERA_CLICKHOUSE__DATABASE", "a-b", "text that matches"),
        ("CHIMERA_KAFKA__BOOTSTRAP_SERVERS", "", "host:port, comma-separated"),
        ("CHIMERA_KAFKA__BOOTSTRAP_SERVERS", "kafka", "host:port, comma-separated"),
        ("CHIMERA_KAFKA__BOOTSTRAP_SERVERS", "kafka:0", "host:port, comma-separated"),
        ("CHIMERA_KAFKA__BOOTSTRAP_SERVERS", "kafka://a:9092", "host:port, comma-separated"),
        ("CHIMERA_KAFKA__BOOTSTRAP_SERVERS", "a:9092,", "host:port, comma-separated"),
        ("CHIMERA_KAFKA__BOOTSTRAP_SERVERS", "::1:9092", "host:port, comma-separated"),
        ("CHIMERA_KAFKA__SESSION_TIMEOUT_SECONDS", "inf", "a finite number"),
        ("CHIMERA_KAFKA__SESSION_TIMEOUT_SECONDS", "nan", "a finite number"),
        ("CHIMERA_CLICKHOUSE__QUERY_TIMEOUT_SECONDS", "1e6", "at most 86400"),
        ("CHIMERA_WORKER__COMMIT_INTERVAL_SECONDS", "0", "at least 0.001"),
        ("CHIMERA_REGISTRY__URL", "registry:8081", "http://host:port"),
        ("CHIMERA_REGISTRY__URL", "http://", "http://host:port"),
        ("CHIMERA_REGISTRY__URL", "http://user:s3cret@registry:8081", "an address without a login"),
        ("CHIMERA_CLICKHOUSE__HOST", "", "a host name"),
        ("CHIMERA_CLICKHOUSE__SECURE", "perhaps", "true or false"),
        ("CHIMERA_CLICKHOUSE__CA_CERT", "/no/such/file", "a file that exists"),
        ("CHIMERA_WORKER__INSERT_THREADS", "many", "a whole number"),
        ("CHIMERA_LOG__LEVEL", "LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    ],
)
def test_a_wrong_value_is_explained(name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line gives the variable and the expected form of its value."""
    complaint = _complaint(monkeypatch, **{name: value})
    assert complaint.startswith(f"{name}: expected ")
    assert expected in complaint
    assert "s3cret" not in complaint


@pytest.mark.parametrize(
    ("one", "other", "values"),
    [
        ("CHIMERA_KAFKA__HEARTBEAT_INTERVAL_SECONDS", "CHIMERA_KAFKA__SESSION_TIMEOUT_SECONDS", ("3", "8.9")),
        ("CHIMERA_WORKER__RETRY_BACKOFF_SECONDS", "CHIMERA_WORKER__RETRY_BACKOFF_MAX_SECONDS", ("2", "1")),
    ],
    ids=["heartbeats", "pauses"],
)
def test_settings_that_contradict_each_other_are_both_named(
    one: str, other: str, values: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each value is valid alone; the line gives both and the expected relation."""
    complaint = _complaint(monkeypatch, **dict(zip((one, other), values, strict=True)))
    assert complaint.startswith(f"{one}: expected at most ")
    assert complaint.endswith(f"{other}, {values[1]}, got {values[0]}")


@pytest.mark.parametrize(
    ("given", "taken"),
    [("a:1, b-c.d:65535", "a:1,b-c.d:65535"), ("[::1]:9092", "[::1]:9092")],
    ids=["two", "IPv6"],
)
def test_a_list_of_servers_is_read(given: str, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks around a server are dropped; IPv6 is allowed."""
    monkeypatch.setenv("CHIMERA_KAFKA__BOOTSTRAP_SERVERS", given)
    assert load_settings().kafka.bootstrap_servers == taken


def test_all_wrong_values_are_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two mistakes give one line, without secrets."""
    complaint = _complaint(
        monkeypatch,
        CHIMERA_CLICKHOUSE__PASSWORD="s3cret",
        CHIMERA_CLICKHOUSE__PORT="s3cret",
        CHIMERA_WORKER__WEB_PORT="0",
    )
    assert "\n" not in complaint
    assert "CHIMERA_CLICKHOUSE__PORT" in complaint
    assert "CHIMERA_WORKER__WEB_PORT" in complaint
    assert "s3cret" not in complaint


def test_a_password_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text form of the settings contains no password."""
    monkeypatch.setenv("CHIMERA_CLICKHOUSE__PASSWORD", "s3cret")
    monkeypatch.setenv("CHIMERA_REGISTRY__PASSWORD", "s3cret")
    settings = load_settings()
    assert settings.clickhouse.password.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(settings)


def test_names_of_settings_are_unique() -> None:
    """Each setting has its own variable."""
    assert len(set(env_names())) == len(env_names())


def test_a_command_ends_with_one_line_and_78(monkeypatch: pytest.MonkeyPatch) -> None:
    """`chimera` explains a wrong setting in one line on standard error, and exits 78."""
    monkeypatch.setenv("CHIMERA_KAFKA__PORT", "9092")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "topics", "plan"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 78
    assert done.stdout == ""
    assert done.stderr.startswith("chimera: CHIMERA_KAFKA__PORT: ")
    assert done.stderr.count("\n") == 1


def test_choices_are_shown_as_choices() -> None:
    """A setting with a few values names them; it has no regular expression of alternatives."""
    for section, part in Settings.model_fields.items():
        for key, field in getattr(part.annotation, "model_fields", {}).items():
            patterns = [str(getattr(each, "pattern", None) or "") for each in field.metadata]
            assert not [pattern for pattern in patterns if "|" in pattern], f"{section}.{key}"
