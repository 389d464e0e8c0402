"""`chimera dlq` on a real broker: it counts, shows, requeues and drops the selected dead letters and no others."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer
from support.commands import Chimera, command
from support.dlq_topic import made_up, messages, reject, values
from support.events import as_stored, bag, events, publish, rows, settled
from support.processes import Worker, prepare

from pipeline.catalog import Family
from pipeline.cli.dlq.options import STATES
from pipeline.config import Settings, env_name
from pipeline.devstack.ports import free_port
from pipeline.errors import Reason
from pipeline.kafka.client import client_config
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration

_SECONDS = 120.0
_PREFIX = "chimera.error."


@pytest.fixture
def chimera(settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Chimera:
    """Run `chimera dlq …` without a terminal, in this process, whose environment is that of the settings."""
    del settings
    return command(capsys, monkeypatch, "dlq")


@pytest.fixture
def family(settings: Settings) -> Family:
    return prepare(settings).family("ui_events")


def counts(chimera: Chimera, *arguments: str) -> dict[str, int]:
    """Count dead letters with `ls`, by `reason state`."""
    every = [word for state in STATES for word in ("--state", state)]
    listed = chimera("ls", "--json", *every, *arguments)
    assert listed.returncode == 0, listed.stderr
    found = [json.loads(line) for line in listed.stdout.splitlines()]
    return {f"{count['reason']} {count['state']}": count["letters"] for count in found}


def test_ls_counts_each_once_and_show_shows_it(chimera: Chimera, settings: Settings, family: Family) -> None:
    """Copies are counted apart, and values are masked by default."""
    reject(settings, family, made_up(3))
    reject(settings, family, made_up(3))
    reject(settings, family, made_up(1, first=7), Reason.TOMBSTONE)
    listed = chimera("ls")
    assert listed.returncode == 0
    cells = [line.split() for line in listed.stdout.splitlines()]
    assert cells[0] == ["topic", "reason", "state", "letters", "copies", "first", "last"]
    assert [row[:5] for row in cells[1:3]] == [
        [family.topic.name, "malformed", "open", "3", "3"],
        [family.topic.name, "tombstone", "open", "1", "0"],
    ]
    assert listed.stdout.endswith("4 open, 0 claimed, 0 requeued, 0 dropped\n")
    assert counts(chimera, "--reason", "malformed") == {"malformed open": 3}
    assert counts(chimera, "--topic", "llm_events") == {}
    assert counts(chimera, "--until", "2026-01-01") == {}

    shown = chimera("show", "--at", f"{family.topic.name}:1:7")
    assert shown.stdout.startswith(f"{family.topic.name}:1:7  tombstone: because\n")
    assert "key-7" not in shown.stdout
    own = json.loads(chimera("show", "--at", f"{family.dead_letters.name}:0:1", "--unmask", "--json").stdout)
    assert (own["source"], own["key"], own["copies"]) == (f"{family.topic.name}:1:1", "key-1", 2)
    assert len(chimera("show", "--limit", "2", "--json").stdout.splitlines()) == 2


def test_requeueing_previews_and_then_sends_each_back_once(
    chimera: Chimera, settings: Settings, family: Family
) -> None:
    """Records go to the partition of their key, unchanged; foreign and worn-out ones stay."""
    own: list[tuple[str, bytes | None]] = [("trace", b"\xff"), ("trace", None)]
    reject(settings, family, made_up(20, headers=own))
    reject(settings, family, made_up(20, headers=own))
    reject(settings, family, made_up(2, first=50, headers=[(f"{_PREFIX}attempts", b"2")]), Reason.TRUNCATED)
    publish(settings, family.dead_letters.name, [b"somebody else's"])
    before = counts(chimera)
    assert before == {"malformed open": 20, "truncated open": 2, "foreign open": 1}

    preview = chimera("requeue", "--all")
    assert preview.returncode == 0
    assert "  truncated  0 to requeue, 2 left: rejected 3 times, or incomplete\n" in preview.stdout
    assert "  foreign  0 to requeue, 1 left: their topic is unknown\n" in preview.stdout
    assert preview.stdout.endswith("20 to requeue; nothing was done: add --execute\n")
    assert (counts(chimera), values(settings, family)) == (before, [])

    done = chimera("requeue", "--all", "--execute")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "20 requeued"), done.stderr
    assert counts(chimera) == {"malformed requeued": 20, "truncated open": 2, "foreign open": 1}
    assert "0 to requeue\n" in chimera("requeue", "--all", "--execute").stdout
    back = messages(settings, family.topic.name)
    assert sorted((message.key(), message.value()) for message in back) == sorted(
        (record.key, record.value) for record in made_up(20)
    )
    for message in back:
        headers: Any = message.headers()
        assert headers[:-2] == own
        assert headers[-2] == (f"{_PREFIX}attempts", b"1")
    publish_by_key(settings, family, [message.key() or b"" for message in back])
    partitions: dict[bytes, set[int]] = {}
    for message in messages(settings, family.topic.name):
        partitions.setdefault(message.key() or b"", set()).add(message.partition() or 0)
    assert all(len(numbers) == 1 for numbers in partitions.values())
    assert len(set.union(*partitions.values())) == 2

    assert "2 requeued" in chimera("requeue", "--reason", "truncated", "--max-attempts", "4", "--execute").stdout


def publish_by_key(settings: Settings, family: Family, keys: Sequence[bytes]) -> None:
    """Publish records as `pipeline.producer` does."""
    producer = Producer({**client_config(settings.kafka), "partitioner": "murmur2_random"})
    for key in keys:
        producer.produce(family.topic.name, b"", key)
    assert producer.flush(_SECONDS) == 0


def test_dropping_asks_and_is_final(
    chimera: Chimera, environ: dict[str, str], settings: Settings, family: Family
) -> None:
    """Only the selection is dropped; without a terminal --yes is required; dropped letters are never requeued."""
    reject(settings, family, made_up(3))
    reject(settings, family, made_up(2, first=10), Reason.TOMBSTONE)
    assert "nothing was done" in chimera("drop", "--reason", "tombstone").stdout
    refused = chimera("drop", "--reason", "tombstone", "--execute")
    assert (refused.returncode, "add --yes" in refused.stderr) == (2, True)
    assert on_a_terminal(environ, "n", "drop", "--reason", "tombstone", "--execute") == 1
    assert counts(chimera) == {"malformed open": 3, "tombstone open": 2}
    assert on_a_terminal(environ, "y", "drop", "--reason", "tombstone", "--execute") == 0
    assert "1 dropped" in chimera("drop", "--at", f"{family.topic.name}:1:1", "--execute", "--yes").stdout
    assert counts(chimera) == {"malformed open": 2, "malformed dropped": 1, "tombstone dropped": 2}
    assert "2 requeued" in chimera("requeue", "--all", "--execute").stdout
    assert values(settings, family) == [b"0", b"2"]


def on_a_terminal(environ: Mapping[str, str], answer: str, *arguments: str) -> int:
    """Run `chimera dlq …` on a terminal, answer its question and return its exit code."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pipeline.cli", "dlq", *arguments]
    with subprocess.Popen(
        command, env=environ, stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        os.write(ours, f"{answer}\n".encode())
        process.wait(_SECONDS)
    os.close(ours)
    os.close(theirs)
    return process.returncode


def test_a_record_that_the_broker_refuses_is_reported(chimera: Chimera, settings: Settings, family: Family) -> None:
    """If the source topic takes only small records, the command ends with 70; the large record stays claimed."""
    small, large = made_up(2)
    reject(settings, family, [small, large._replace(value=os.urandom(4096))])
    document = yaml.safe_load(settings.topics.file.read_text(encoding="utf-8"))
    document["topics"][family.topic.name]["max_message_bytes"] = 2048
    settings.topics.file.write_text(yaml.safe_dump(document), encoding="utf-8")
    prepare(settings)
    refused = chimera("requeue", "--all", "--execute")
    assert refused.returncode == 70
    assert "too large" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert values(settings, family) == [b"0"]
    assert counts(chimera) == {"malformed claimed": 1, "malformed requeued": 1}


def test_a_record_that_was_unreadable_is_stored_once_its_schema_is_known(
    chimera: Chimera, settings: Settings, environ: dict[str, str], tmp_path: Path, family: Family
) -> None:
    """Events with an unknown schema are rejected, requeued once the schema is known, and stored once."""
    good = events(family.name, 3)
    records = [Encoder(family).encode(event) for event in good]
    directory = tmp_path / "schemas"
    hide_newest(settings, family, directory)
    old = {**environ, env_name("schemas", "directory"): str(directory)}
    producer = Producer(client_config(settings.kafka))
    for key, value in records:
        producer.produce(family.topic.name, value, key)
    assert producer.flush(_SECONDS) == 0
    with Worker(old, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, len(good))
        worker.terminate()
    assert rows(settings, family.table) == []
    assert counts(chimera) == {"unknown_schema open": 3}
    assert "requeued" in chimera("requeue", "--reason", "unknown_schema", "--execute").stdout
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, len(good))
    assert bag(rows(settings, family.table)) == bag(as_stored(family, event) for event in good)


def hide_newest(settings: Settings, family: Family, directory: Path) -> None:
    """Write the schemas of an older worker: the family's schema has another fingerprint."""
    directory.mkdir()
    for file in settings.schemas.directory.glob("*.avsc"):
        schema = json.loads(file.read_text(encoding="utf-8"))
        if file == family.schema.file:
            schema["namespace"] = "another"
        (directory / file.name).write_text(json.dumps(schema), encoding="utf-8")


def test_a_record_that_stays_invalid_is_requeued_twice(
    chimera: Chimera, settings: Settings, environ: dict[str, str], tmp_path: Path, family: Family
) -> None:
    """After its third rejection a record is left alone, however often it is selected."""
    publish(settings, family.topic.name, [b"never"])
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        for rejected in (1, 2, 3):
            settled(worker, settings, family, rejected)
            chimera("requeue", "--all", "--execute")
        assert "0 to requeue, 1 left: rejected 3 times, or" in chimera("requeue", "--all", "--execute").stdout
    assert counts(chimera) == {"unframed open": 1, "unframed requeued": 2}
    assert len(values(settings, family)) == 3


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        pytest.param(["requeue"], 2, "or --all", id="nothing selected"),
        pytest.param(["requeue", "--topic", "ui_events"], 2, "or --all", id="a topic alone"),
        pytest.param(["drop", "--all", "--reason", "empty"], 2, "or --all", id="all, and not all"),
        pytest.param(["ls", "--topic", "nowhere"], 2, "no family has the topic 'nowhere'", id="no such topic"),
        pytest.param(["ls", "--at", "a:b"], 2, "expected topic:partition:offset", id="no coordinates"),
        pytest.param(["ls", "--since", "yesterday"], 2, "expected ISO 8601", id="no time"),
        pytest.param(["ls", "--reason", "bad"], 2, "'bad' is not one of 'tombstone'", id="no reason"),
    ],
)
def test_wrong_usage(chimera: Chimera, arguments: list[str], exit_code: int, message: str) -> None:
    """The message says what was expected."""
    result = chimera(*arguments)
    assert (result.returncode, message in result.stderr) == (exit_code, True), result.stderr


def test_no_topic_and_no_broker_are_one_line(chimera: Chimera, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing topic and an absent broker are one line each: how to create it, and the address."""
    missing = chimera("ls")
    assert (missing.returncode, missing.stderr.count("\n")) == (70, 1)
    assert "create it with `chimera topics apply`" in missing.stderr
    nowhere = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv(env_name("kafka", "bootstrap_servers"), nowhere)
    away = chimera("ls")
    assert (away.returncode, away.stderr.count("\n")) == (69, 1)
    assert f"Kafka at {nowhere} is not available" in away.stderr
