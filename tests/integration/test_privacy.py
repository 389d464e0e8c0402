"""No personal data is stored in ClickHouse or appears in the worker's output."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hostile.personal import leaks
from support.processes import Worker

from pipeline.config import Settings, env_name
from pipeline.errors import ConfigError

pytestmark = pytest.mark.integration


def test_nothing_of_the_corpus_is_in_a_table_the_log_or_any_answer(
    settings: Settings, environ: Mapping[str, str], tmp_path: Path
) -> None:
    """No string of the corpus leaks, in any text field of any family and in any form, through a real worker."""
    assert leaks(settings, environ, tmp_path) == {}


def test_a_worker_without_a_key_does_not_start(environ: Mapping[str, str], tmp_path: Path) -> None:
    """One line names the missing setting and tells how to make a key."""
    name = env_name("privacy", "hash_key")
    without = {key: value for key, value in environ.items() if key != name}
    for key, said in (
        (None, "expected a secret; make one with `openssl"),
        ("short", "expected at least 32 characters"),
    ):
        with Worker({**without, **({name: key} if key else {})}, tmp_path / "log") as worker:
            assert worker.wait() == ConfigError.exit_code
            assert worker.log.startswith(f"chimera: {name}: {said}")
            assert worker.log.count("\n") == 1
