"""The broker's AOT cache: a broker uses it, and starts without it when it is damaged."""

from pathlib import Path

import pytest

from pipeline.devstack import KafkaBroker, aot_cache, jars

pytestmark = [pytest.mark.integration, pytest.mark.untraced]


def test_a_broker_uses_the_cache(tmp_path: Path) -> None:
    """Java has it in its memory; `make test` has made it, else this test makes it."""
    cache = aot_cache.make()
    with KafkaBroker(tmp_path / "kafka") as broker:
        assert str(cache) in Path(f"/proc/{broker.pid}/maps").read_text()


def test_a_broker_ignores_a_damaged_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts, and loads its classes itself."""
    paths = jars.fetch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jars.cache_directory().mkdir(parents=True)
    for path in paths:
        (jars.cache_directory() / path.name).symlink_to(path)
    jars.aot_cache().write_bytes(b"no cache")
    with KafkaBroker(tmp_path / "kafka") as broker:
        assert broker.running
