"""Settings of a real worker: unusual values work, wrong ones are one line, and Faust's own variables are ignored."""

import os
import socket
import subprocess
from pathlib import Path

import pytest
from confluent_kafka import Producer as KafkaProducer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from support.events import events, publish, settled
from support.kafka_requests import answer_to
from support.processes import Worker, last_word, prepare

from pipeline.config import ENV_PREFIX, Settings, env_name
from pipeline.devstack.stack import DEVELOPMENT_HASH_KEY
from pipeline.devstack.worker import WORKER_COMMAND
from pipeline.errors import ConfigError, HaltError
from pipeline.kafka.client import client_config
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration

_FAUST = {
    "PROCESSING_GUARANTEE": "exactly_once",
    "BROKER_URL": "kafka://127.0.0.1:1",
    "BROKER_CLIENT_ID": "someone",
    "BROKER_MAX_POLL_RECORDS": "many",
    "BROKER_SESSION_TIMEOUT": "1",
    "BROKER_REQUEST_TIMEOUT": "1",
    "CONSUMER_AUTO_OFFSET_RESET": "latest",
    "CONSUMER_GROUP_INSTANCE_ID": "one",
    "APP_DATADIR": "/nowhere/data",
    "APP_ENV_PREFIX": "other",
    "APP_STORE": "rocksdb://",
    "APP_WEB_ENABLED": "no",
    "APP_DEBUG": "1",
    "AGENT_SUPERVISOR": "no.such.module",
    "NODE_HOSTNAME": "elsewhere",
    "STREAM_BUFFER_MAXSIZE": "1",
    "TIMEZONE": "Nowhere",
    "TOPIC_DISABLE_LEADER": "no",
    "WEB_BIND": "192.0.2.1",
    "WEB_PORT": "1",
    "F_DATADIR": "/nowhere/faust",
    "FAUST_DEBUG": "1",
    "FAUST_STRICT": "1",
    "FAUST_WEB_TRANSPORT": "unix:///nowhere",
    "DJANGO_SETTINGS_MODULE": "no.such.settings",
}


def _runs(settings: Settings, environ: dict[str, str], log: Path) -> None:
    """Check that a worker consumes and stores with this environment."""
    family = prepare(settings).family("ui_events")
    with Worker(environ, log) as worker:
        worker.wait_until_consuming()
        encoder = Encoder(family)
        publish(settings, family.topic.name, [encoder.encode(event)[1] for event in events(family.name, 20)])
        worker.wait_for(lambda: worker.metric("chimera_rows_inserted_total") == 20, "stored")
        assert worker.terminate() == 0
        assert "Traceback" not in worker.log


@pytest.mark.parametrize(
    "unusual",
    [
        pytest.param({env_name("kafka", "group_id"): "test/a/../é %s"}, id="group with slashes"),
        pytest.param({env_name("kafka", "group_id"): "g" * 249}, id="long group"),
        pytest.param({env_name("kafka", "session_timeout_seconds"): "120"}, id="long session"),
        pytest.param(_FAUST, id="variables of Faust"),
    ],
)
def test_the_worker_runs_with(
    unusual: dict[str, str], settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """Only what Chimera sets counts: groups of any name, a long session, and none of Faust's own variables."""
    _runs(settings, environ | unusual, tmp_path / "log")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("kafka.group_id", "g" * 250),
        ("kafka.group_id", "line\nbreak"),
        ("kafka.ca_cert", "-----BEGIN CERTIFICATE-----\n" + "a" * 3000),
        ("kafka.bootstrap_servers", "a..b:9092"),
        ("kafka.max_fetch_bytes", "2147483648"),
        ("clickhouse.host", f"{'a' * 64}.example"),
        ("clickhouse.password", "p\udcff"),
        ("clickhouse.ca_cert", "a" * 5000),
        ("registry.url", "http://a:99999"),
        ("worker.web_host", "a..b"),
        ("worker.web_port", "9" * 5000),
        ("schemas.directory", "a" * 5000),
        ("topics.file", "a" * 5000),
    ],
    ids=lambda value: value[:30].encode("ascii", "backslashreplace").decode(),
)
def test_a_wrong_value_is_one_line(setting: str, value: str) -> None:
    """The worker ends at once, with exit code 78 and without a traceback; it needs no server for that."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith(ENV_PREFIX)}
    key = {env_name("privacy", "hash_key"): DEVELOPMENT_HASH_KEY}
    wrong = environ | key | {env_name(*setting.split(".")): value}
    done = subprocess.run(WORKER_COMMAND, env=wrong, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (ConfigError.exit_code, "")
    assert done.stderr.startswith("chimera: ")
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """The worker ends with one line, also before it has reached Kafka."""
    with (
        socket.create_server(("127.0.0.1", settings.worker.web_port)),
        Worker({**environ, env_name("kafka", "bootstrap_servers"): "127.0.0.1:1"}, tmp_path / "log") as worker,
    ):
        line = last_word(worker, ConfigError.exit_code)
    assert f"{env_name('worker', 'web_port')}: expected a port to listen on" in line


def _set_cleanup(settings: Settings, topic: str, policy: str) -> None:
    entry = ConfigEntry("cleanup.policy", policy, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({**client_config(settings.kafka)})  # must live until the answer
    answer_to(lambda: admin.incremental_alter_configs([resource])[resource])


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_a_compacted_dead_letter_topic_is_refused_at_the_start(
    policy: str, settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """The worker names the topic and the command that mends it."""
    topic = prepare(settings).family("ui_events").dead_letters.name
    _set_cleanup(settings, topic, policy)
    with Worker(environ, tmp_path / "log") as worker:
        line = last_word(worker, HaltError.exit_code)
    assert f"topic {topic} is compacted" in line
    assert "`chimera topics apply`" in line


def test_a_dead_letter_topic_that_is_compacted_later_is_named(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """The partition waits, each retry says why, and goes on by itself once the topic is as declared."""
    family = prepare(settings).family("ui_events")
    producer = KafkaProducer(client_config(settings.kafka))
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        _set_cleanup(settings, family.dead_letters.name, "compact")
        producer.produce(family.topic.name, b"neither framing")
        assert producer.flush(30) == 0
        worker.wait_for(lambda: worker.lines("trouble begins"), "retry")
        assert f"topic {family.dead_letters.name} is compacted" in worker.lines("trouble begins")[0]
        _set_cleanup(settings, family.dead_letters.name, "delete")
        settled(worker, settings, family, 1)
