"""Each installation takes locked versions, checked by their hashes."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
_PIN = re.compile(r"^([\w.-]+)(?:\[[\w,]+\])?==([\w.]+)", re.MULTILINE)


def _installations() -> Iterator[str]:
    """Yield the arguments of each `pip install` and `pip wheel` of the build's files."""
    for name in ("Makefile", "Dockerfile", ".ci/run", ".pre-commit-config.yaml"):
        text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", "")
        yield from re.findall(r"pip (?:install|wheel) ([^&|;\n]*)", text)


def _pins(file: Path) -> dict[str, str]:
    return dict(_PIN.findall(file.read_text(encoding="utf-8")))


def test_each_installation_is_locked() -> None:
    """Each one checks hashes, or installs the package itself: without dependencies, and built with locked tools."""
    installations = [set(shlex.split(each)) for each in _installations()]
    assert len(installations) == 9
    for arguments in installations:
        built = "--no-build-isolation" in arguments or any(each.endswith(".whl") for each in arguments)
        assert "--require-hashes" in arguments or ("--no-deps" in arguments and built), arguments


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_has_a_hash_for_each_version(lock: Path) -> None:
    """Pip refuses a file of another content."""
    text = lock.read_text(encoding="utf-8")
    parts = re.split(r"^(?=[\w.-]+(?:\[[\w,]+\])?==)", text, flags=re.MULTILINE)[1:]
    assert parts
    assert [part.partition(" ")[0] for part in parts if "--hash=sha256:" not in part] == []


@pytest.mark.parametrize(("name", "within"), [(each, "development") for each in ("worker", "build", "install")])
def test_locks_agree(name: str, within: str) -> None:
    """The image runs the versions that the tests run with."""
    pins, wider = (_pins(ROOT / "requirements" / f"{each}.txt") for each in (name, within))
    assert pins.items() <= wider.items()


def test_the_lock_of_the_peers_has_their_versions() -> None:
    """The benchmark names the versions in its report, and installs the locked ones."""
    named = _pins(ROOT / "benchmarks" / "requirements-peers.txt")
    assert named.items() <= _pins(ROOT / "requirements" / "peers.txt").items()
