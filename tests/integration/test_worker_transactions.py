"""The worker and producers with transactions: no aborted event in a table, and partitions that come to rest."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from click.testing import CliRunner
from support.processes import Worker, prepare
from support.session_stats import HOUR_MS
from support.transactions import Pair, TransactionalProducer

from pipeline.catalog import Family
from pipeline.cli.rollup import rollup as command
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.session_stats import TABLE
from pipeline.config import Settings, env_name
from pipeline.kafka.offsets import TopicReader
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration

_BEGIN = 1_760_000_400_000 // HOUR_MS * HOUR_MS
_DAY = "2025-10-09"
_HOURS = {0: (0, 1), 1: (0, 1, 4, 5)}
"""Hours with committed events, by partition; the first partition is at rest while the second has later hours."""


@pytest.fixture
def family(settings: Settings) -> Family:
    """The family ui_events, whose topic and table exist."""
    return prepare(settings).family("ui_events")


@pytest.fixture
def two(settings: Settings) -> Iterator[tuple[TransactionalProducer, TransactionalProducer]]:
    """Two producers, for transactions that are interleaved."""
    kafka = settings.kafka
    with (
        TransactionalProducer(kafka, f"{kafka.group_id}.1") as first,
        TransactionalProducer(kafka, f"{kafka.group_id}.2") as second,
    ):
        yield first, second


def _environ(environ: dict[str, str], **rollup: str) -> dict[str, str]:
    """Environment in which a killed worker is noticed within seconds, and hours close soon."""
    return {
        **environ,
        env_name("kafka", "session_timeout_seconds"): "6",
        env_name("kafka", "heartbeat_interval_seconds"): "1",
        **{env_name("rollup", name): value for name, value in rollup.items()},
    }


def _records(family: Family, sessions: Iterable[int], ts: int = _BEGIN) -> list[Pair]:
    """Return one event of each session at a time."""
    encoder = Encoder(family)
    found: list[Pair] = []
    for session in sessions:
        event: dict[str, Any] = {
            "ts": ts,
            "session_id": str(UUID(int=session)),
            "commit_sha": "0" * 40,
            "event_type": "overlay_open",
            "latency_ms": session % 997,
            "user_agent": "",
            "metadata": "{}",
        }
        message = encoder.encode(event)
        found.append((message.key, message.value))
    return found


def _stored(settings: Settings) -> Counter[int]:
    """Return the number of rows of each session in ui_events."""
    with connect(settings.clickhouse) as client:
        return Counter(
            {
                key.int: count
                for key, count in client.execute("SELECT session_id, count() FROM ui_events GROUP BY session_id")
            }
        )


def _at_the_end(settings: Settings, topic: str) -> bool:
    """Tell whether the group has committed the end of every partition, markers included."""
    with TopicReader(settings.kafka, topic) as reader:
        ends = {number: offsets.stop for number, offsets in reader.ranges().items()}
        return all((offset or 0) == ends[number] for number, offset in reader.committed(ends).items())


def test_no_aborted_event_is_stored_when_workers_are_killed_amid_transactions(
    settings: Settings,
    environ: dict[str, str],
    family: Family,
    two: tuple[TransactionalProducer, TransactionalProducer],
    tmp_path: Path,
) -> None:
    """Each committed event has one row, each aborted one none, and an open one none before its commit."""
    steady, doubtful = two
    topic, kept = family.topic.name, set[int]()
    environ = _environ(environ)
    for turn in range(3):
        with Worker(environ, tmp_path / "log") as worker:
            worker.wait_until_consuming()
            for number in range(20):
                first = 1 + (turn * 20 + number) * 100
                doubtful.send(topic, _records(family, range(first + 50, first + 90)), number % 2)
                steady.send(topic, _records(family, range(first, first + 50)), number % 2)
                steady.commit()
                kept |= set(range(first, first + 50))
                if number % 4 == 3:  # the last one of a turn stays open while the worker is killed
                    doubtful.abort() if number < 19 else None
            some = turn * 400
            worker.wait_for(lambda: len(_stored(settings)) > some, "some events stored")  # noqa: B023 (called at once)
            worker.kill()
        assert set(_stored(settings)) <= kept
        doubtful.abort() if turn % 2 else doubtful.commit()
        if not turn % 2:
            first = 1 + turn * 2000
            kept |= {first + number * 100 + each for number in range(16, 20) for each in range(50, 90)}
    doubtful.send(topic, _records(family, [999_999]))
    doubtful.abort()
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_for(lambda: _at_the_end(settings, topic), "committed up to the end")
        assert worker.terminate() == 0
    assert _stored(settings) == Counter(kept)


def _send_interleaved(kept: TransactionalProducer, dropped: TransactionalProducer, family: Family) -> None:
    """Send events to commit and events to abort; those at the end of each partition are aborted."""
    topic = family.topic.name
    for partition, hours in _HOURS.items():
        sessions = range(1 + partition * 10, 11 + partition * 10)
        for hour in hours:
            ts = _BEGIN + hour * HOUR_MS + (HOUR_MS - 1_500 if hour == hours[-1] else 0)
            kept.send(topic, _records(family, sessions, ts), partition)
            dropped.send(topic, _records(family, [*sessions, 99], ts + 100), partition)
        dropped.send(topic, _records(family, sessions, _BEGIN + 9 * HOUR_MS), partition)
    kept.commit()
    dropped.abort()


def test_aborted_events_are_in_no_statistics_and_a_partition_that_ends_with_them_is_at_rest(
    settings: Settings,
    environ: dict[str, str],
    family: Family,
    two: tuple[TransactionalProducer, TransactionalProducer],
    tmp_path: Path,
) -> None:
    """Verify compares all hours, and repair mends them; an open transaction keeps hours open."""
    kept, dropped = two
    topic = family.topic.name
    soon = {"grace_seconds": "1", "idle_seconds": "1", "snapshot_seconds": "1"}
    with Worker(_environ(environ, **soon), tmp_path / "log") as worker:
        worker.wait_until_consuming()
        _send_interleaved(kept, dropped, family)
        worker.wait_for(lambda: _at_the_end(settings, topic), "committed up to the end")
        worker.wait_for(lambda: _verified()["hours"] == 4, "all hours closed")
        assert _stored(settings) == Counter({**dict.fromkeys(range(1, 11), 2), **dict.fromkeys(range(11, 21), 4)})
        facts = _verified()
        assert (facts["rows"], facts["unexplained"], facts["open"]["hours"]) == (60, 0, 0)

        with connect(settings.clickhouse) as client:
            client.execute(f"ALTER TABLE {TABLE} DELETE WHERE session_id = '{UUID(int=11)}'")
        worker.wait_for(lambda: _verified()["missing"] == 4, "the missing rows found")
        assert CliRunner().invoke(command, ["repair", "--day", _DAY, "--execute"]).exit_code == 0
        assert _verified()["unexplained"] == 0

        dropped.send(topic, _records(family, [1], _BEGIN))
        facts = _verified()
        assert (facts["hours"], facts["open"]["rows"]) == (2, 20)
        assert not _at_the_end(settings, topic)
        dropped.abort()
        worker.wait_for(lambda: _verified()["hours"] == 4, "at rest again")
        assert worker.terminate() == 0


def _verified() -> Any:
    """Return the facts of `chimera rollup verify`; without a snapshot yet, no hour is compared.

    A snapshot that is being replaced is a line of the log. A command of its own writes it to standard error.
    """
    lines = CliRunner().invoke(command, ["verify", "--json"]).stdout.splitlines()
    return orjson.loads(lines[-1]) if lines and lines[-1].startswith("{") else {"hours": -1, "missing": -1}
