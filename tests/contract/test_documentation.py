"""The documentation agrees with the code: settings, commands, files, modules, classes, links and layers."""

import ast
import pkgutil
import re
import tomllib
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
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(f"docs/{p.relative_to(ROOT / 'docs')}" for p in (ROOT / "docs").rglob("*.md")),
]
_FENCE = re.compile(r"^```.*?^```\s*$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"`([\w./-]+\.(?:py|sql|ya?ml|toml|md|avsc|jsonl|txt|lock))`")
_FOLDER = re.compile(r"`([\w./-]+)/`")
_PATH = re.compile(r"\b(?:pipeline|tests|benchmarks|schemas|requirements|examples)/[\w./<>*-]*[\w>*]")
_DOTTED = re.compile(r"\bpipeline(?:\.[A-Za-z_]\w*)+")
_CLASS = re.compile(r"`([A-Z]+[a-z]\w*)(?:\.(\w+))?`")
_LINK = re.compile(r"\]\((?P<file>[^)#:]*)(?:#(?P<section>[^)]*))?\)")
_EXAMPLES = {"content/users/guide/part.md"}  # names in texts of events


def test_every_setting_is_documented() -> None:
    """docs/configuration.md lists all settings, and only settings, in the order of the code."""
    assert list(ROWS) == list(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_documented_defaults(name: str) -> None:
    """A documented default equals the default in the code; words stand for no default, a secret or a path."""
    default = SETTINGS[name]
    if isinstance(default, (Path, SecretStr)) or default in {None, ""}:
        assert ROWS[name] is None
    else:
        assert ROWS[name] == (str(default).lower() if isinstance(default, bool) else str(default))


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    """The first section is the next release: unreleased, or with the date on which it is tagged."""
    heading = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert heading
    version, _, date = heading[1].partition(" ")
    assert version == settings["project"]["version"]
    assert re.fullmatch(r"\((unreleased|\d{4}-\d\d-\d\d)\)", date)


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


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    """Each file and folder in backticks exists, from the root of the project or from pipeline/."""
    names = _FILE.findall(_prose(page)) + _FOLDER.findall(_prose(page))
    missing = {name for name in names if not any((ROOT / start / name).exists() for start in ("", "pipeline"))}
    assert missing <= _EXAMPLES


@pytest.mark.parametrize("page", PAGES)
def test_paths_and_modules_that_a_page_names_exist(page: str) -> None:
    """Each path from the root of the project exists today, and so does each `pipeline.x.y`; `<N>` is any text."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [path for path in _PATH.findall(text) if not any(ROOT.glob(re.sub(r"<\w+>", "*", path)))] == []
    names = set(_DOTTED.findall(text)) - {"pipeline.app"}  # made from the environment when it is used
    assert [name for name in names if not _resolves(name)] == []


def test_classes_that_the_architecture_names_exist() -> None:
    """Each class in backticks in docs/architecture.md is in pipeline/, and so is the method after it."""
    definitions: dict[str, set[str]] = {}
    for file in (ROOT / "pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                methods = (each for each in node.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)))
                definitions[node.name] = {"", *(method.name for method in methods)}
    named = _CLASS.findall((ROOT / "docs/architecture.md").read_text(encoding="utf-8"))
    assert named
    assert [each for each in named if each[1] not in definitions.get(each[0], ())] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    """Each link to a file of the project leads to one, and to one of its headings."""
    for link in _LINK.finditer(_prose(page)):
        target = (ROOT / page).parent / link["file"] if link["file"] else ROOT / page
        assert target.exists(), link[0]
        if link["section"]:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert link["section"] in {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}


def test_the_documented_layers_are_those_that_are_checked() -> None:
    """docs/architecture.md shows the layers of the contract in pyproject.toml."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = next(each for each in settings["tool"]["importlinter"]["contracts"] if each["type"] == "layers")["layers"]
    assert "```\n" + "\n".join(layers) + "\n```" in (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def test_the_installation_shows_its_progress() -> None:
    """`make install` takes a minute: pip says what it does meanwhile, there and wherever else it is called."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    calls = [line.split() for line in lines if "pip install" in line]
    assert calls
    assert not [call for call in calls if {"-q", "-qq", "--quiet"} & set(call)]


def _resolves(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def _prose(page: str) -> str:
    """Text of a page without its fenced blocks."""
    return _FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
