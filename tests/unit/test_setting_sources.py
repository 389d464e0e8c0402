"""Settings from files in the folder that CHIMERA_SECRETS_DIR names."""

import os
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.config import ENV_PREFIX, load_settings
from pipeline.errors import ConfigError
from pipeline.forms import SECRETS_DIR

_PASSWORD = "CHIMERA_CLICKHOUSE__PASSWORD"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the files, as Kubernetes makes it: names are links to a folder that is exchanged as a whole."""
    for name in os.environ:
        if name.upper().startswith(ENV_PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv(SECRETS_DIR, str(tmp_path))
    stamped = tmp_path / "..2026_11_29"
    stamped.mkdir()
    (tmp_path / "..data").symlink_to(stamped.name)
    (stamped / _PASSWORD).write_text("s3cret\n", encoding="utf-8")
    (tmp_path / _PASSWORD).symlink_to(f"..data/{_PASSWORD}")
    return tmp_path


def _complaint() -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings()
    return str(caught.value)


def test_a_file_is_a_setting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A section may be in files and variables; other files aren't ours."""
    (folder / "ca.pem").write_text("other", encoding="utf-8")
    monkeypatch.setenv("CHIMERA_CLICKHOUSE__USER", "ingest")
    settings = load_settings().clickhouse
    assert (settings.user, settings.password.get_secret_value()) == ("ingest", "s3cret")


def test_a_folder_of_large_files_is_refused_in_one_line(folder: Path) -> None:
    """Files of others count as well: the folder may hold all secrets of a container."""
    with (folder / "other").open("wb") as other:
        other.truncate(2**24 + 1)
    assert _complaint() == (
        f"{SECRETS_DIR}: secrets_dir size is above 16777216 bytes; expected a folder of settings and secrets"
    )


@pytest.mark.usefixtures("folder")
def test_a_variable_counts_before_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """One value can be replaced for one command."""
    monkeypatch.setenv(_PASSWORD, "other")
    assert load_settings().clickhouse.password.get_secret_value() == "other"


@pytest.mark.usefixtures("folder")
def test_the_source_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """`chimera config show` names the source of each value, and masks it."""
    monkeypatch.setenv("CHIMERA_CLICKHOUSE__USER", "ingest")
    rows = orjson.loads(CliRunner().invoke(cli, ["config", "show", "--json"]).output)
    assert rows[_PASSWORD] == {"value": "********", "source": "file"}
    assert rows["CHIMERA_CLICKHOUSE__USER"]["source"] == "environment"
    assert rows["CHIMERA_CLICKHOUSE__HOST"]["source"] == "default"


def test_a_misspelt_file_is_an_error(folder: Path) -> None:
    """A password that nobody reads would be no password."""
    (folder / "CHIMERA_KAFKA__PASWORD").write_text("s3cret", encoding="utf-8")
    complaint = _complaint()
    assert complaint == "CHIMERA_KAFKA__PASWORD: no such setting; did you mean CHIMERA_KAFKA__PASSWORD?"


def test_a_wrong_value_is_explained_without_it(folder: Path) -> None:
    """The line has the name of the setting, as for a variable."""
    (folder / "CHIMERA_PRIVACY__HASH_KEY").write_text("s3cret", encoding="utf-8")
    complaint = _complaint()
    assert complaint.startswith("CHIMERA_PRIVACY__HASH_KEY: expected ")
    assert "s3cret" not in complaint


def test_what_cannot_be_read_is_named(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A file of bytes, a link that leads out, a folder, and two names of one setting aren't passed by in silence."""
    file = folder / "CHIMERA_KAFKA__USER"
    file.write_bytes(b"\xff\xfe")
    assert _complaint().endswith(f"{file}: expected text in UTF-8")
    file.unlink()
    outside = tmp_path_factory.mktemp("outside") / "user"
    outside.write_text("worker", encoding="utf-8")
    file.symlink_to(outside)
    assert "a link that leads out of the folder" in _complaint()
    file.unlink()
    file.mkdir()
    assert _complaint().endswith(f"{file}: Is a directory")
    file.rmdir()
    file.write_text("worker", encoding="utf-8")
    (folder / file.name.lower()).write_text("worker", encoding="utf-8")
    assert "are one setting" in _complaint()


@pytest.mark.parametrize("value", ["/no/such/folder", __file__, "x" * 5000])
def test_a_folder_that_is_not_there_is_named(value: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker without its secrets doesn't start."""
    del folder
    monkeypatch.setenv(SECRETS_DIR, value)
    assert _complaint().startswith(f"{SECRETS_DIR}: expected a folder that exists, got ")


@pytest.mark.usefixtures("folder")
def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose sets variables without a value to empty ones."""
    monkeypatch.setenv(SECRETS_DIR, "")
    assert load_settings().clickhouse.password.get_secret_value() == ""
