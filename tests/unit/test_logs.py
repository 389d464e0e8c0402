"""Output of the worker: which lines the log drops, and the standard streams."""

import logging
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from pipeline.config import env_name
from pipeline.devstack.stack import DEVELOPMENT_HASH_KEY
from pipeline.logs import Seldom
from pipeline.retry import coordinates


def _record(name: str, message: str, value: int, at: float) -> logging.LogRecord:
    record = logging.LogRecord(name, logging.ERROR, __file__, 1, message, (value,), None)
    record.created = at
    return record


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("aiokafka.consumer.fetcher", [True, False, False, True], id="a library"),
        pytest.param("chimera.ingest", [True, True, True, True], id="our own"),
    ],
)
def test_a_library_repeats_a_message_only_every_30_seconds(name: str, expected: list[bool]) -> None:
    """Lines that differ in their values are the same message; our own log isn't filtered."""
    seldom = Seldom()
    said = [seldom.filter(_record(name, "no node %s", value, at)) for value, at in enumerate([0.0, 1.0, 29.0, 30.0])]
    assert said == expected


def test_another_message_is_not_dropped() -> None:
    """Another text, or the same text of another library, is another message."""
    seldom = Seldom()
    records = [_record(name, text, 1, 0.0) for name in ("mode", "aiokafka") for text in ("no node %s", "no topic %s")]
    assert all(seldom.filter(record) for record in records)


def test_a_retry_is_logged_with_fields_instead_of_text() -> None:
    """A micro-batch and a partition, as session_stats has it, are named by topic, numbers of partition and offsets."""

    @dataclass(eq=False)
    class Partition:
        topic: str = "chimera.ui_events"
        partition: int = 3
        live: bool = True
        committed_at: float = 0.0

    @dataclass(eq=False)
    class Batch(Partition):
        first: int = 7
        last: int = 9

    where = {"topic": "chimera.ui_events", "partition": 3}
    assert coordinates(Partition()) == where
    assert coordinates(Batch()) == where | {"first_offset": 7, "last_offset": 9}


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_the_app_is_made_though_a_standard_stream_is_closed(closed: str) -> None:
    """A supervisor may have closed it; no connection gets its number, and no library misses it."""
    made = "import os, sys, pipeline; pipeline.app; sys.exit(not all((sys.stdin, sys.stdout, sys.stderr)))"
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", made]
    environ = os.environ | {env_name("privacy", "hash_key"): DEVELOPMENT_HASH_KEY}
    assert subprocess.run(command, env=environ, check=False).returncode == 0
