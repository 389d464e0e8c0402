"""The documentation of settings and commands agrees with the code."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.cli import COMMANDS
from pipeline.config import Settings, env_name

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| `(?P<name>CHIMERA_\w+)` \| (?:`(?P<default>[^`]+)`|(?P<words>[^|]+?)) \|", re.MULTILINE)
ROWS = {
    row["name"]: row["default"] for row in _ROW.finditer((ROOT / "docs/configuration.md").read_text(encoding="utf-8"))
}
SETTINGS = {
    env_name(section, key): value
    for section, field in Settings.model_fields.items()
    for key, value in dict(field.default).items()
}


def test_every_setting_is_documented() -> None:
    """docs/configuration.md lists all settings, and only settings, in the order of the code."""
    assert list(ROWS) == list(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_documented_defaults(name: str) -> None:
    """A documented default equals the default in the code; words stand for no default, a secret or a path."""
    default = SETTINGS[name]
    if isinstance(default, (Path, SecretStr)) or default is None:
        assert ROWS[name] is None
    else:
        assert ROWS[name] == (str(default).lower() if isinstance(default, bool) else str(default))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command: str) -> None:
    """The README shows how to call each command."""
    assert re.search(rf"\b(chimera|make) {command}\b", (ROOT / "README.md").read_text(encoding="utf-8"))


def test_the_block_to_paste_asks_no_questions() -> None:
    """A question would take the next pasted line for its answer."""
    assert re.search(r"^chimera topics apply --yes ", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_no_example_goes_on_after_a_failure() -> None:
    """`||` in an example would run the next command also after a failure."""
    for module in sorted((ROOT / "pipeline/cli").glob("*.py")):
        assert "||" not in module.read_text(encoding="utf-8"), module.name
