"""With `CHIMERA_LOG__FORMAT=json`, the output of the worker is JSON from the first line to the last."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer as KafkaProducer
from support.processes import Worker, prepare

from pipeline.config import Settings, env_name
from pipeline.devstack.worker import WORKER_COMMAND
from pipeline.kafka.client import client_config

pytestmark = pytest.mark.integration

_JSON = {env_name("log", "format"): "json"}


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_of_a_worker_is_json(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """Start, rejected records, Ctrl-C and stop: each line is an object, and coordinates are numbers."""
    family = prepare(settings).family("ui_events")
    environ = environ | _JSON | {"PYTHONWARNINGS": "always"}
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        producer = KafkaProducer(client_config(settings.kafka))
        for _ in range(20):
            producer.produce(family.topic.name, b"neither framing", partition=0)
        assert producer.flush(30) == 0
        worker.wait_for(lambda: worker.lines("more records rejected"), "rejected")
        worker.process.send_signal(signal.SIGINT)
        assert worker.wait() == 0
        lines = _lines(worker.log)
    assert all({"timestamp", "level", "logger", "event"} <= line.keys() for line in lines)
    assert [line["event"] for line in (lines[0], lines[-1])] == ["starting", "stopped"]
    rejected = next(line for line in lines if line["event"].startswith("more records rejected"))
    assert (rejected["topic"], rejected["partition"]) == (family.topic.name, 0)
    assert {type(rejected[f"{name}_offset"]) for name in ("first", "last")} == {int}


def test_a_wrong_setting_is_one_json_line(environ: dict[str, str]) -> None:
    """A failure from before the settings are known has the same format, on standard error alone."""
    wrong = environ | _JSON | {env_name("worker", "web_port"): "0"}
    done = subprocess.run(WORKER_COMMAND, env=wrong, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (78, "")
    (line,) = _lines(done.stderr)
    assert line["event"].startswith(env_name("worker", "web_port"))
    assert line["level"] == "critical"
