"""`chimera dlq` on a real broker: what is sent back is sent back once, whoever breaks off, and nothing else is done."""

import json
import os
import pty
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from support.events import as_stored, bag, events, publish, rows, settled
from support.processes import Worker, prepare

from pipeline.catalog import Family
from pipeline.cli import main
from pipeline.cli.dlq.options import STATES
from pipeline.columns import Rejection
from pipeline.config import Settings, env_name
from pipeline.devstack.ports import free_port
from pipeline.dlq.index import CLAIM_SECONDS, Selection
from pipeline.dlq.letters import DlqRecord
from pipeline.dlq.reading import Reading
from pipeline.dlq.receipts import Outcome, Receipt
from pipeline.dlq.settle import Settler
from pipeline.dlq.writer import DeadLetters
from pipeline.errors import Reason
from pipeline.kafka.client import client_config
from pipeline.producer.encode import Encoder
from pipeline.transport.batches import PartitionBatches, State

pytestmark = pytest.mark.integration

_SECONDS = 30
_PREFIX = "chimera.error."


class Ended(NamedTuple):
    """How a command did."""

    returncode: int
    stdout: str
    stderr: str


Chimera = Callable[..., Ended]


@pytest.fixture
def chimera(settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Chimera:
    """Run `chimera dlq …` without a terminal, in this process, whose environment is that of the settings."""
    del settings

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["chimera", "dlq", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def family(settings: Settings) -> Family:
    return prepare(settings).family("ui_events")


def reject(settings: Settings, family: Family, records: Sequence[DlqRecord], reason: Reason = Reason.MALFORMED) -> None:
    """Make dead letters of records of partition 1, as a worker does."""
    partition = PartitionBatches(family.topic.name, "id", 1, State(records[0].offset, ()), policy=family.batch, limit=1)
    partition.add(list(records), 0)
    (batch,) = partition.cut(0, hurry=True)
    rejections = [Rejection(position, reason, "because") for position in range(len(records))]
    DeadLetters(settings.kafka, [family]).send(batch, rejections)


def made_up(count: int, first: int = 0, **also: Any) -> list[DlqRecord]:
    """Records as a worker has them, with a key each."""
    numbers = range(first, first + count)
    now = round(time.time() * 1000)
    return [DlqRecord(1, n, now, f"key-{n}".encode(), b"%d" % n, also.get("headers", [])) for n in numbers]


def messages(settings: Settings, topic: str) -> list[Message]:
    """All that a topic has."""
    consumer = Consumer({**client_config(settings.kafka), "group.id": "-"})
    try:
        found: list[Message] = []
        for number in consumer.list_topics(topic).topics[topic].partitions:
            partition = TopicPartition(topic, number, 0)
            _, end = consumer.get_watermark_offsets(partition, _SECONDS)
            consumer.assign([partition])
            while sum(message.partition() == number for message in found) < end:
                found += consumer.consume(end, 1)
        return found
    finally:
        consumer.close()


def values(settings: Settings, family: Family) -> list[bytes]:
    """What the source topic has, sorted."""
    return sorted(message.value() or b"" for message in messages(settings, family.topic.name))


def counts(chimera: Chimera, *arguments: str) -> dict[str, int]:
    """`reason state` to the number of dead letters, as `ls` has it."""
    every = [word for state in STATES for word in ("--state", state)]
    listed = chimera("ls", "--json", *every, *arguments)
    assert listed.returncode == 0, listed.stderr
    found = [json.loads(line) for line in listed.stdout.splitlines()]
    return {f"{count['reason']} {count['state']}": count["letters"] for count in found}


def test_ls_counts_each_once_and_show_shows_it(chimera: Chimera, settings: Settings, family: Family) -> None:
    """Two copies of three dead letters, and one of another reason; masked unless asked."""
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
    """To the partition of its key, as it was; what is foreign or worn out stays; a second run has nothing to do."""
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
    """As `pipeline.producer.producer` does."""
    producer = Producer({**client_config(settings.kafka), "partitioner": "murmur2_random"})
    for key in keys:
        producer.produce(family.topic.name, b"", key)
    assert producer.flush(_SECONDS) == 0


def test_dropping_asks_and_is_final(
    chimera: Chimera, environ: dict[str, str], settings: Settings, family: Family
) -> None:
    """Of what is selected; without a terminal it wants --yes; what is dropped is neither listed nor requeued."""
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
    """The exit code of `chimera dlq …` when somebody answers its question."""
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


def settler(
    settings: Settings,
    family: Family,
    *,
    claim_seconds: float = CLAIM_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Settler, Reading, Counter[str]]:
    """A run that has read the dead letters."""
    reading, outcome = Reading(settings.kafka, family, claim_seconds=claim_seconds), Counter[str]()
    for _ in reading.read():
        pass
    return Settler(settings.kafka, reading, outcome, clock=clock), reading, outcome


def go_round(run: Settler, reading: Reading) -> None:
    for letters in reading.pages(Selection()):
        while letters:
            del letters[: run.requeue(letters)]


class _KilledError(Exception):
    """In the place of a kill -9."""


@pytest.mark.parametrize(
    ("point", "found"),
    [
        pytest.param("_find", 0, id="claimed, not sent"),
        pytest.param("_produce", 3, id="sent, not noted"),
    ],
)
def test_a_run_that_breaks_off_is_gone_on_with(
    settings: Settings, family: Family, monkeypatch: pytest.MonkeyPatch, point: str, found: int
) -> None:
    """Within a minute the dead letters are left alone; then what was sent is found, and the rest sent: each once."""
    reject(settings, family, made_up(3))
    publish(settings, family.topic.name, [b"before"])
    first, reading, _ = settler(settings, family)
    original = getattr(first, point)

    def killed(*arguments: Any) -> None:
        original(*arguments)
        raise _KilledError

    monkeypatch.setattr(first, point, killed)
    with pytest.raises(_KilledError):
        go_round(first, reading)
    publish(settings, family.topic.name, [b"after"])

    second, reading, outcome = settler(settings, family)
    go_round(second, reading)
    assert +outcome == {"left": 3}

    third, reading, outcome = settler(settings, family, claim_seconds=0)
    go_round(third, reading)
    assert +outcome == +Counter(found=found, requeued=3 - found)
    assert values(settings, family) == [b"0", b"1", b"2", b"after", b"before"]


def test_how_old_a_claim_is_says_the_broker(settings: Settings, family: Family) -> None:
    """Not the clock of the machine that made it, which may be an hour behind."""
    reject(settings, family, made_up(3))
    run, reading, outcome = settler(settings, family)
    letters = next(reading.pages(Selection()))
    claim = Receipt(Outcome.CLAIMED, "behind", tuple(letter.id for letter in letters), {0: 0, 1: 0})
    producer, hour_ago = Producer(client_config(settings.kafka)), round(time.time() * 1000) - 3_600_000
    producer.produce(family.dead_letters.name, claim.value, headers=[*claim.headers], timestamp=hour_ago)
    assert producer.flush(_SECONDS) == 0
    go_round(run, reading)
    assert +outcome == {"left": 3}
    assert values(settings, family) == []


def test_of_two_runs_at_once_one_has_each_dead_letter(settings: Settings, family: Family) -> None:
    """Both have read them; whose claim comes second leaves them."""
    reject(settings, family, made_up(5))
    one, one_reading, _ = settler(settings, family)
    other, other_reading, outcome = settler(settings, family)
    go_round(one, one_reading)
    go_round(other, other_reading)
    assert +outcome == {"left": 5}
    assert values(settings, family) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_claim_that_gets_old_is_made_again(settings: Settings, family: Family) -> None:
    """Many large records over a slow line: some now, the others under another claim; each once, all of them."""
    reject(settings, family, made_up(5))
    now = iter(range(0, 10_000, 15))  # the clock advances by 15 s at every call
    run, reading, outcome = settler(settings, family, clock=lambda: next(now))
    go_round(run, reading)
    assert +outcome == {"requeued": 5}
    assert values(settings, family) == [b"0", b"1", b"2", b"3", b"4"]
    claims = [
        message for message in messages(settings, family.dead_letters.name) if b"claimed" in (message.value() or b"")
    ]
    assert len(claims) == 5


def test_what_the_broker_refuses_is_said_and_the_rest_is_noted(
    chimera: Chimera, settings: Settings, family: Family
) -> None:
    """The source topic takes only small records now: exit code 70, what it took is done, the other is not lost."""
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
    """Rejected, looked at, repaired by a new version of the schema, sent back, stored, once."""
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
    """Schemas as a worker of another time had them: the family's has another fingerprint."""
    directory.mkdir()
    for file in settings.schemas.directory.glob("*.avsc"):
        schema = json.loads(file.read_text(encoding="utf-8"))
        if file == family.schema.file:
            schema["namespace"] = "another"
        (directory / file.name).write_text(json.dumps(schema), encoding="utf-8")


def test_what_is_never_repaired_goes_round_three_times(
    chimera: Chimera, settings: Settings, environ: dict[str, str], tmp_path: Path, family: Family
) -> None:
    """A record that nothing was done about is left after its third rejection, however often it is asked for."""
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
    """It is said what was expected."""
    result = chimera(*arguments)
    assert (result.returncode, message in result.stderr) == (exit_code, True), result.stderr


def test_no_topic_and_no_broker_are_one_line(chimera: Chimera, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without topics: how to make them. Without a broker: where none is."""
    missing = chimera("ls")
    assert (missing.returncode, missing.stderr.count("\n")) == (70, 1)
    assert "create it with `chimera topics apply`" in missing.stderr
    nowhere = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv(env_name("kafka", "bootstrap_servers"), nowhere)
    away = chimera("ls")
    assert (away.returncode, away.stderr.count("\n")) == (69, 1)
    assert f"Kafka at {nowhere} is not available" in away.stderr
