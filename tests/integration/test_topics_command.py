"""`chimera topics` against a real broker."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from support.commands import Forked, forked
from support.kafka_requests import answer_to

from pipeline.catalog import load_topics
from pipeline.config import KafkaSettings, Settings, env_name
from pipeline.devstack.ports import free_port
from pipeline.errors import HaltError, UnavailableError
from pipeline.kafka.client import client_config
from pipeline.kafka.leaders import wait_for_leaders
from pipeline.kafka.topics import Cluster, TopicAdmin, plan

pytestmark = pytest.mark.integration

_NEW_TOPICS = 40  # without the wait, a few of them can't be used yet
_TOPICS = 13  # of six families, their dead letters, and the rollup's state


@pytest.fixture
def chimera(environ: dict[str, str], commands: Path) -> Forked:
    """Run `chimera topics …` without a terminal, in the test's environment."""
    return forked(commands, environ, "topics")


def _declare(settings: Settings, **values: Any) -> str:
    """Set values of ui_events in the test's topics.yaml; return the topic's name."""
    file = settings.topics.file
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    name = next(name for name in document["topics"] if name.endswith(".ui_events"))
    document["topics"][name].update(values)
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return str(name)


def _cluster(settings: Settings) -> Cluster:
    return TopicAdmin(settings.kafka).read(topic.name for topic in load_topics(settings.topics.file))


def _signs(output: str) -> str:
    return "".join(re.findall(r"^[+~=](?= )", output, re.MULTILINE))


def test_a_plan_changes_nothing_and_applying_it_leaves_nothing_to_do(chimera: Forked, settings: Settings) -> None:
    """All topics are planned, then created as declared; then plan and apply find nothing to do."""
    planned = chimera("plan")
    assert (planned.returncode, _signs(planned.stdout)) == (2, "+" * _TOPICS)
    assert _cluster(settings).topics == {}

    applied = chimera("apply", "--yes")
    assert (applied.returncode, applied.stdout) == (0, planned.stdout)
    for topic in load_topics(settings.topics.file):
        live = _cluster(settings).topics[topic.name]
        assert (live.partitions, live.replication) == (topic.partitions, topic.replication)
        assert topic.config.items() <= live.config.items()

    again = chimera("plan")
    assert (again.returncode, _signs(again.stdout)) == (0, "=" * _TOPICS)
    assert chimera("apply").returncode == 0


def test_only_differing_settings_are_altered(chimera: Forked, settings: Settings) -> None:
    """Partitions grow, with a warning about keys; configuration changes; undeclared settings keep their values."""
    chimera("apply", "--yes")
    name = _declare(settings, partitions=3, retention_hours=1, max_message_bytes=2048)
    before = _cluster(settings).topics

    applied = chimera("apply", "--yes")

    assert applied.returncode == 0
    line = f"~ {name}  partitions 2 → 3, retention.ms 604800000 → 3600000, max.message.bytes 1048576 → 2048"
    assert " ".join(line.split()) in [" ".join(shown.split()) for shown in applied.stdout.splitlines()]
    assert f"warning: {name}: with more partitions, new records of a session_id may go to another" in applied.stderr
    assert (
        "Every open hour of a session_id that moves is split into two windows: `chimera rollup verify`"
        in applied.stderr
    )
    assert "Running workers take new partitions over within 30 s; none needs a restart." in applied.stderr
    after = _cluster(settings).topics
    changed = {"retention.ms": "3600000", "max.message.bytes": "2048"}
    assert after[name].partitions == 3
    assert after[name].config == {**before[name].config, **changed}
    assert {other: live for other, live in after.items() if other != name} == {
        other: live for other, live in before.items() if other != name
    }


@pytest.mark.parametrize(
    ("values", "key"),
    [({"partitions": 1}, "partitions"), ({"replication": 2}, "replication")],
    ids=["fewer partitions", "another replication factor"],
)
def test_an_impossible_change_changes_nothing(
    values: dict[str, int], key: str, chimera: Forked, settings: Settings
) -> None:
    """One impossible topic gives one line and exit code 78; the other topics aren't created either."""
    name = _declare(settings)
    admin = AdminClient(dict(client_config(settings.kafka)))
    answer_to(lambda: admin.create_topics([NewTopic(name, 2, 1)])[name])
    wait_for_leaders(settings.kafka, {name: 2})
    _declare(settings, **values)

    applied = chimera("apply", "--yes")

    assert (applied.returncode, applied.stdout) == (78, "")
    assert applied.stderr.startswith(f"chimera: {settings.topics.file}: topics.{name}.{key}: expected ")
    assert applied.stderr.count("\n") == 1
    assert set(_cluster(settings).topics) == {name}


def test_more_replicas_than_brokers_is_an_error(chimera: Forked) -> None:
    """Too high a replication factor is refused before anything is created."""
    planned = chimera("plan", **{env_name("topics", "replication"): "3"})
    assert planned.returncode == 78
    assert "replication: expected at most 1, as many as there are brokers, got 3" in planned.stderr


def test_a_refusal_of_the_broker_changes_nothing(settings: Settings, tmp_path: Path) -> None:
    """The broker refuses an invalid name; the valid topics before it aren't created."""
    document = yaml.safe_load(settings.topics.file.read_text(encoding="utf-8"))
    document["topics"]["."] = {}
    (tmp_path / "refused.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    declared = load_topics(tmp_path / "refused.yaml")
    admin = TopicAdmin(settings.kafka)
    with pytest.raises(HaltError, match=rf"Kafka at {settings.kafka.bootstrap_servers} refuses topic \.: "):
        admin.apply(plan(declared, admin.read(topic.name for topic in declared), settings.topics.file))
    assert _cluster(settings).topics == {}


def test_new_topics_can_be_used_at_once(settings: Settings) -> None:
    """Brokers acknowledge a topic before they know it and lead it; `apply` waits for both."""
    own = settings.kafka.group_id
    (spec,) = (topic for topic in load_topics(settings.topics.file) if topic.name.endswith(".ui_events"))
    topics = [spec.model_copy(update={"name": f"{own}.{number}", "partitions": 8}) for number in range(_NEW_TOPICS)]
    admin, reader = TopicAdmin(settings.kafka), Consumer({**client_config(settings.kafka), "group.id": own})
    try:
        for topic in topics:
            admin.apply(plan([topic], admin.read([topic.name]), settings.topics.file))
            assert topic.name in admin.rights([topic.name])
            assert len(reader.list_topics(topic.name).topics[topic.name].partitions) == topic.partitions
            for number in range(topic.partitions):
                assert reader.get_watermark_offsets(TopicPartition(topic.name, number), 10.0) == (0, 0)
    finally:
        reader.close()


def test_partitions_without_a_leader_are_named(settings: Settings) -> None:
    """A partition that nobody leads is an error with its name, not a wait for ever."""
    with pytest.raises(UnavailableError, match=r"no leader for nowhere\[0\], nowhere\[1\] after 0 s"):
        wait_for_leaders(settings.kafka, {"nowhere": 2}, wait_seconds=0.2)


def test_without_a_terminal_apply_wants_yes(chimera: Forked, settings: Settings) -> None:
    """Without a terminal nothing is changed, and the error says to add --yes."""
    applied = chimera("apply")
    assert applied.returncode == 2
    assert "add --yes" in applied.stderr
    assert _cluster(settings).topics == {}


@pytest.mark.parametrize(("answer", "exit_code", "created"), [("y", 0, _TOPICS), ("n", 1, 0)], ids=["yes", "no"])
def test_on_a_terminal_apply_asks(
    answer: str, exit_code: int, created: int, environ: dict[str, str], settings: Settings
) -> None:
    """The command shows the plan, then asks; only a yes makes the changes."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "topics", "apply"],
        env=environ,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.write(ours, f"{answer}\n".encode())
        shown, asked = process.communicate()
    os.close(ours)
    os.close(theirs)
    assert _signs(shown) == "+" * _TOPICS
    assert "Make these changes?" in asked
    assert (process.returncode, len(_cluster(settings).topics)) == (exit_code, created)


def test_an_absent_broker_is_named() -> None:
    """The message holds the address of a broker that doesn't answer."""
    nowhere = f"127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match=f"Kafka at {nowhere} is not available"):
        TopicAdmin(KafkaSettings(bootstrap_servers=nowhere), answer_seconds=0.5).read([])
