"""The directory in memory is used only where files and programs fit into it."""

import os
from pathlib import Path

import pytest

from pipeline.devstack.memory_files import memory_directory


def test_tmpdir_has_the_last_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A caller that names a place for temporary files gets them there."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert memory_directory() is None


def test_a_directory_without_room_or_right_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It must exist, have 4 GiB of room, and run programs."""
    monkeypatch.delenv("TMPDIR", raising=False)
    assert memory_directory(tmp_path / "missing") is None
    facts = os.statvfs(tmp_path)
    for name, value in {"f_bavail": 0, "f_flag": os.ST_NOEXEC}.items():
        fields = {each: getattr(facts, each) for each in ("f_bavail", "f_frsize", "f_flag")}
        changed = type("Facts", (), fields | {"f_bavail": 1 << 40} | {name: value})
        monkeypatch.setattr(os, "statvfs", lambda _, changed=changed: changed)
        assert memory_directory(tmp_path) is None
