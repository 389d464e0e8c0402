"""`chimera replay` from another topic and from files: each record once, with coordinates of its own."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from support.commands import Chimera
from support.dlq_topic import made_up, messages, reject
from support.events import events, rows
from support.kafka_topic import Topic
from support.processes import eventually, in_foreground
from support.replays import PARTITIONS, UiEvents
from support.source_files import avro_values, dump_topic, dumped, write_avro, write_dump
from support.verifying import Verify

from pipeline.clickhouse.coordinates import Source
from pipeline.config import Settings
from pipeline.devstack.process import spawn
from pipeline.kafka.topics import TopicAdmin
from pipeline.operations.lineage.files import file_id
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration

_COUNT = 200


def _values(log: UiEvents, count: int = _COUNT) -> list[bytes | None]:
    encoder, log.events = Encoder(log.family), events("ui_events", count)
    return [encoder.encode(event).value for event in log.events]


def _topic_ids(log: UiEvents, table: str = "ui_events") -> set[UUID]:
    with log.client() as client:
        return {row[0] for row in client.execute(f"SELECT DISTINCT _topic_id FROM {table}")}


@pytest.fixture
def avro(log: UiEvents, tmp_path: Path) -> Path:
    """A container file with the events of the log's sample, and one that a worker rejects."""
    log.events = events("ui_events", _COUNT)
    values = avro_values(log.family, log.events)
    wrong = values[0] | {"event_type": "no such type"}
    return write_avro(tmp_path / "events.avro", log.family.schema.raw, [*values[:50], wrong, *values[50:]])


def test_another_topic_is_read_up_to_its_end(log: UiEvents, replay: Chimera) -> None:
    """Without commits of the group; rows have the topic's coordinates. The second replay inserts nothing."""
    topic, values = Topic(log.settings.kafka, "old", PARTITIONS), _values(log)
    for number in range(PARTITIONS):
        topic.produce(values[number::PARTITIONS], number)
    topic.produce([b"no event"])
    source = ("--source-topic", topic.name)
    planned = replay(*source, "--json").facts
    assert [(part["from"], part["to"]) for part in planned["partitions"]] == [(0, 101), (0, 100)]
    assert (planned["estimated_rows"], planned["sample"]["rejected"], log.stored()) == (_COUNT, {"unframed": 1}, (0, 0))
    assert replay(*source, "--from", "0:90", "--to", "1:0", "--execute", "--json").facts["inserted"] == 10
    assert replay(*source, "--execute", "--json").facts["inserted"] == _COUNT - 10
    assert log.complete(rows(log.settings, "ui_events"))
    topic_id = TopicAdmin(log.settings.kafka).ids([topic.name])[topic.name]
    assert _topic_ids(log) == {Source.of(topic_id, 0).topic_id}
    again = replay(*source, "--execute", "--json")
    assert (again.returncode, again.facts["inserted"], topic.committed) == (0, 0, {})
    assert messages(log.settings, log.family.dead_letters.name) == []


def test_a_topic_of_another_role_is_refused(log: UiEvents, replay: Chimera) -> None:
    """In one line, before anything is read."""
    for name, words in {
        "ui_events": "leave --source-topic out",
        "llm_events": "has the events of llm_events",
        "ui_events.dlq": "has the dead letters of ui_events",
        "session_stats.state": "has the state of the rollup",
        "nowhere": "has no topic",
    }.items():
        refused = replay("--source-topic", log.topic.name.replace("ui_events", name), "--execute")
        assert refused.returncode == 65
        assert words in refused.stderr


def test_a_dump_of_the_own_topic_restores_what_the_log_has_deleted(
    log: UiEvents, replay: Chimera, tmp_path: Path
) -> None:
    """Rows that are there aren't inserted again, by coordinates; what isn't committed is left to the workers."""
    log.produce(100)
    reject(log.settings, log.family, made_up(1, first=3))
    log.produce(20, committed=False)
    path = dump_topic(log.settings, log.topic.name, tmp_path / "dump.jsonl")
    log.topic.delete_records(20)
    assert replay("--execute", "--json").facts["inserted"] == 79
    shown = replay("--from-file", str(path))
    assert "Partition 0: 10 offsets from 50 on are left out: they are the workers'" in shown.stdout
    restored = replay("--from-file", str(path), "--execute", "--json")
    assert (restored.returncode, restored.facts["inserted"], restored.facts["dead_letters"]) == (0, 20, 1)
    assert log.stored() == (99, 99)
    for arguments in (("--from-file", str(path)), ()):
        again = replay(*arguments, "--execute", "--json")
        assert (again.returncode, again.facts["inserted"], again.facts["withheld"]) == (0, 0, 0)


def test_events_of_another_source_are_not_taken_for_new_ones(
    log: UiEvents, replay: Chimera, verify: Verify, tmp_path: Path
) -> None:
    """A dump of another cluster may have the events that workers have stored: the user has to know that it hasn't."""
    log.produce(10)
    replay("--execute")
    new = events("ui_events", 30)[10:]
    encoder = Encoder(log.family)
    path = write_dump(tmp_path / "dump.jsonl", dumped([encoder.encode(event).value for event in new]))
    source = ("--from-file", str(path))
    assert "0 rows without coordinates and 10 of other sources, such as the family's topic" in replay(*source).stdout
    left = replay(*source, "--execute", "--json")
    assert (left.returncode, left.facts["inserted"], left.facts["withheld"]) == (1, 0, 20)
    assert replay(*source, "--despite-unknown", "--execute", "--json").facts["inserted"] == 20
    log.events += new
    assert log.complete(rows(log.settings, "ui_events"))
    compared = verify("ui_events", "--json")
    assert compared.code == 0
    found = compared.family
    assert [found[name] for name in ("rows", "lost", "doubled", "strange", "other_topics")] == [10, 0, 0, 0, 20]
    with log.client() as client:
        client.execute("DELETE FROM ui_events WHERE _offset = 4 AND _partition = 1")
    filled = replay("--execute", "--json")
    assert (filled.returncode, filled.facts["inserted"], filled.facts["withheld"]) == (1, 0, 5)
    assert replay("--despite-unknown", "--execute", "--json").facts["inserted"] == 1


def test_an_avro_file_is_inserted_once(log: UiEvents, replay: Chimera, avro: Path, tmp_path: Path) -> None:
    """Its topic id is that of its content, so another name changes nothing. Rejected records are listed."""
    planned = replay("--from-file", str(avro))
    assert f"Source: Avro file {avro}, topic id {file_id(avro)}" in planned.stdout
    assert f"To come: about {_COUNT} rows" in planned.stdout
    done = replay("--from-file", str(avro), "--execute")
    assert done.returncode == 0, done.stderr
    assert "Rejected: partition 0, offset 50: not_in_set" in done.stdout
    assert log.complete(rows(log.settings, "ui_events"))
    assert _topic_ids(log) == {file_id(avro)}
    again = replay("--from-file", str(avro.rename(tmp_path / "renamed")), "--execute", "--json")
    assert (again.returncode, again.facts["inserted"], again.facts["rejected"]) == (0, 0, {"not_in_set": 1})
    assert messages(log.settings, log.family.dead_letters.name) == []


def test_another_table_is_filled_from_a_file(log: UiEvents, replay: Chimera, avro: Path) -> None:
    """The family's own stays as it is."""
    assert replay("--from-file", str(avro), "--into", "again", "--execute", "--json").facts["inserted"] == _COUNT
    assert log.complete(rows(log.settings, "again"))
    assert log.stored() == (0, 0)


def test_nothing_of_a_damaged_file_is_inserted(log: UiEvents, replay: Chimera, avro: Path, tmp_path: Path) -> None:
    """Not even the records before the damage: the mended file would be another one."""
    avro.write_bytes(avro.read_bytes()[:-1])
    two, one = dumped(_values(log, 3), topic_id=None), tmp_path / "other"
    one.write_bytes(b"PAR1")
    twice = write_dump(tmp_path / "twice.jsonl", [*two, *two])
    mixed = write_dump(tmp_path / "mixed.jsonl", [*two, *dumped([b""], "other", None, 1)])
    letters = write_dump(tmp_path / "letters.jsonl", dumped([b""], log.family.dead_letters.name))
    for path, words in {
        avro: "damaged, block at byte",
        one: "byte 0: neither",
        twice: "line 4: offset 0 of partition 0 comes after offset 2",
        mixed: "line 4: a record of topic other",
        letters: "has the dead letters",
    }.items():
        refused = replay("--from-file", str(path), "--execute")
        assert refused.returncode == 65
        assert words in refused.stderr
        assert str(path) in refused.stderr or path is letters
    assert log.stored() == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("--source-topic", "a", "--from-file", "{}"), "not both", id="two sources"),
        pytest.param(("--from-file", "{}", "--from-file", "{}"), "once for each file", id="two files"),
        pytest.param(("--from-file", "{}", "--to", "7"), "read as a whole", id="a part of a file"),
        pytest.param(("--from-file", "{}", "--day", "2026-01-31"), "made of its own topic", id="day of a file"),
        pytest.param(("--source-topic", "a", "--day", "2026-01-31"), "made of its own topic", id="day of a topic"),
        pytest.param(
            (
                "--from-file",
                "{}.none",
            ),
            "does not exist",
            id="no file",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    replay: Chimera, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    """Nothing is read."""
    path = tmp_path / "file"
    path.touch()
    ended = replay(*(each.format(path) for each in arguments))
    assert ended.returncode == 2
    assert words in " ".join(ended.stderr.split())


def test_a_killed_replay_of_a_file_goes_on(
    settings: Settings, environ: Mapping[str, str], tmp_path: Path, replay: Chimera
) -> None:
    """No row is missing or there twice after a kill -9 in the middle."""
    document = yaml.safe_load(settings.topics.file.read_text())
    document["defaults"]["batch"]["max_rows"] = 50
    settings.topics.file.write_text(yaml.safe_dump(document))
    log = UiEvents(settings)
    log.events = events("ui_events", 1_000)
    path = write_avro(tmp_path / "events.avro", log.family.schema.raw, avro_values(log.family, log.events))
    chimera = str(Path(sys.executable).with_name("chimera"))
    arguments = ["replay", "ui_events", "--from-file", str(path), "--execute", "--max-rows-per-second", "200"]
    running: subprocess.Popen[bytes] = spawn(in_foreground([chimera, *arguments]), dict(environ), tmp_path / "log")
    eventually(lambda: log.stored()[0] >= 100, "some rows inserted")
    running.send_signal(signal.SIGKILL)
    running.wait(30)
    stored, different = log.stored()
    assert stored == different < 1_000
    assert 0 < replay("--from-file", str(path), "--execute", "--json").facts["inserted"] < 1_000
    assert log.complete(rows(log.settings, "ui_events"))
