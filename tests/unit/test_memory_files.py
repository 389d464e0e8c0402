"""The directory in memory is used only where files and programs fit into it."""

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from pipeline.devstack.memory_files import memory_directory

_GIB = 1 << 30


@pytest.fixture(autouse=True)
def _roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with enough of everything."""
    monkeypatch.delenv("TMPDIR", raising=False)
    _have(monkeypatch)


def _have(monkeypatch: pytest.MonkeyPatch, *, room: int = 64, memory: int = 64, flags: int = 0) -> None:
    facts = SimpleNamespace(f_bavail=room * _GIB, f_frsize=1, f_flag=flags)
    monkeypatch.setattr(os, "statvfs", lambda _: facts)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=memory * _GIB))


def test_it_is_used_where_all_is_there(tmp_path: Path) -> None:
    """Room, memory and rights."""
    assert memory_directory(tmp_path, cgroup=tmp_path) == tmp_path


def test_tmpdir_has_the_last_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A caller that names a place for temporary files gets them there; an empty name is none."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert memory_directory(tmp_path, cgroup=tmp_path) is None
    monkeypatch.setenv("TMPDIR", "")
    assert memory_directory(tmp_path, cgroup=tmp_path) == tmp_path


def test_what_is_missing_rules_it_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """4 GiB of room, 12 GiB of memory, the right to run programs, and the right to write."""
    for lack in ({"room": 3}, {"memory": 11}, {"flags": os.ST_NOEXEC}):
        _have(monkeypatch, **lack)
        assert memory_directory(tmp_path, cgroup=tmp_path) is None
    _have(monkeypatch)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert memory_directory(tmp_path, cgroup=tmp_path) is None


def test_a_missing_directory_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other systems have none."""
    monkeypatch.undo()
    monkeypatch.delenv("TMPDIR", raising=False)
    assert memory_directory(tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("limit", "used"),
    [("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")],
)
def test_the_limit_of_a_container_counts(limit: str, used: str, tmp_path: Path) -> None:
    """The machine may have more memory than the container may use."""
    (tmp_path / "memory").mkdir()
    (tmp_path / used).write_text(f"{8 * _GIB}\n")
    (tmp_path / limit).write_text(f"{32 * _GIB}\n")
    assert memory_directory(tmp_path, cgroup=tmp_path) == tmp_path
    (tmp_path / limit).write_text(f"{16 * _GIB}\n")
    assert memory_directory(tmp_path, cgroup=tmp_path) is None
    (tmp_path / limit).write_text("max\n")
    assert memory_directory(tmp_path, cgroup=tmp_path) == tmp_path
