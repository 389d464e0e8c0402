"""The worker serves three pages, and shows no secret there or in its log."""

import http.client
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Producer as KafkaProducer
from support.events import settled
from support.processes import PATIENCE_SECONDS, Worker, eventually, prepare

from pipeline.config import Settings, env_name
from pipeline.devstack.ports import HOST
from pipeline.kafka.client import client_config

pytestmark = pytest.mark.integration

_FAUST_SERVES = [
    "/",
    "/router/",
    "/router/x/",
    "/table",
    "/table/",
    "/table/x/",
    "/graph",
    "/graph/",
    "/stats/",
    "/performance/",
    "/assignment/",
    "/metrics/",
    "/ready/",
    "/docs",
    "/static/",
    "/livecheck",
    "/.env",
]
_SECRETS = {
    env_name("clickhouse", "password"): "s3cret-of-clickhouse",
    env_name("registry", "password"): "s3cret-of-the-registry",
    env_name("kafka", "password"): "s3cret-of-kafka",
    env_name("privacy", "hash_key"): "s3cret-to-hash-with-0123456789abcdef",
}


def _ask(port: int, method: str, path: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_SECONDS)
    connection.request(method, path)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def test_only_metrics_and_health_are_served(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """The pages are read-only and on the loopback interface; Faust's own pages and its server header are gone."""
    prepare(settings)
    port = settings.worker.web_port
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        for path in _FAUST_SERVES:
            assert _ask(port, "GET", path).status == 404, path
        for path in ("/metrics", "/ready", "/live"):
            assert {
                method: _ask(port, method, path).status for method in ("GET", "POST", "PUT", "DELETE", "TRACE")
            } == {"GET": 200, "POST": 405, "PUT": 405, "DELETE": 405, "TRACE": 405}
        for path in ("/metrics", "/no/such/path"):
            assert _ask(port, "GET", path).headers["Server"] is None
        address = socket.gethostbyname(socket.gethostname())
        for elsewhere in {address, "127.0.0.2"} - {HOST}:
            with pytest.raises(OSError, match=r"refused|timed out"):
                socket.create_connection((elsewhere, port), 2)


def test_no_secret_is_shown(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """No secret is in the debug log of a worker, be it working or refused, nor in the output of a command."""
    family = prepare(settings).family("ui_events")
    key = env_name("privacy", "hash_key")
    environ = environ | {env_name("log", "level"): "DEBUG", key: _SECRETS[key]}
    producer = KafkaProducer(client_config(settings.kafka))
    producer.produce(family.topic.name, b"neither framing")
    assert producer.flush(30) == 0
    shown = ""
    with Worker(environ, tmp_path / "works") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, 1)
        worker.terminate()
        shown += worker.log
    environ |= _SECRETS | {env_name("kafka", "user"): "someone", env_name("registry", "user"): "someone"}
    environ |= {
        env_name("kafka", "security_protocol"): "SASL_PLAINTEXT",
        env_name("registry", "url"): "http://127.0.0.1:1",
    }
    with Worker(environ, tmp_path / "refused") as worker:
        eventually(lambda: worker.lines("is not available") or not worker.running, "refused")
        shown += worker.log
    for arguments in (["config", "show"], ["config", "show", "--json"], ["migrate"], ["topics", "plan"]):
        command = [sys.executable, "-m", "pipeline.cli", *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        shown += done.stdout + done.stderr
    assert "CHIMERA_KAFKA__PASSWORD" in shown
    assert "s3cret" not in shown
