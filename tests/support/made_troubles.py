"""Seconds until a made trouble is known, two troubles of Kafka that need several steps, and a halt on the page."""

import asyncio
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions

from pipeline.catalog import TopicSpec
from pipeline.config import Settings
from pipeline.kafka.client import client_config
from pipeline.kafka.leaders import wait_for_leaders
from support.chromium import Chromium, chromium_here
from support.kafka_requests import answer_to
from support.monitors import Monitor
from support.processes import eventually


@dataclass(frozen=True, slots=True)
class Seconds:
    """Time from a trouble's begin until it is known."""

    ready: float
    """By /ready of the worker; infinite if no worker can know."""
    monitor: float
    """By the metrics of the monitor."""


def known(began: float, ready: Callable[[], object] | None, monitor: Callable[[], object]) -> Seconds:
    """Wait until /ready and the monitor know of a trouble; return the seconds since it began."""
    looks, seconds = {"monitor": monitor} | ({"ready": ready} if ready else {}), {"ready": math.inf}

    def look() -> bool:
        for who in [who for who, sees in looks.items() if sees()]:
            seconds[who] = time.monotonic() - began
            del looks[who]
        return not looks

    eventually(look, "known")
    return Seconds(**seconds)


def add_partition(settings: Settings, topic: TopicSpec, count: int) -> None:
    """Give a topic so many partitions, and wait until all have leaders."""
    admin = AdminClient({**client_config(settings.kafka), "log_level": 0})
    answer_to(lambda: admin.create_partitions([NewPartitions(topic.name, count)])[topic.name])
    wait_for_leaders(settings.kafka, {topic.name: count})


def publish_old(settings: Settings, topic: TopicSpec, count: int) -> None:
    """Publish a record that is an hour younger than the topic's retention, to a new partition: its age isn't known."""
    admin = AdminClient({**client_config(settings.kafka), "log_level": 0})
    entry = ConfigEntry("message.timestamp.type", "CreateTime", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic.name, incremental_configs=[entry])
    answer_to(lambda: admin.incremental_alter_configs([resource])[resource])
    add_partition(settings, topic, count)
    producer = Producer(client_config(settings.kafka))
    at = time.time() - (topic.retention_hours - 1) * 3600
    producer.produce(topic.name, b"old", partition=count - 1, timestamp=int(at * 1000))
    assert producer.flush(30) == 0


def see_the_halt(monitor: Monitor, reason: str) -> None:
    """Check that the page names a halt and its reason, as a trouble and as an event.

    TROUBLES_PICTURES names a folder for a picture of it. Without a browser, the words alone are checked.
    """
    (halt,) = [each for each in monitor.state()["events"] if each["kind"] == "halt"]
    assert reason in halt["text"]
    assert "worker-halted" in monitor.troubles()
    if (program := chromium_here()) is None:
        return

    async def look() -> None:
        async with Chromium(program) as browser:
            await browser.look()
            await browser.open(f"http://127.0.0.1:{monitor.port}/")
            await browser.eventually(
                f"document.getElementById('events')?.textContent.includes({json.dumps(halt['text'])})"
            )
            assert await browser.value("!!document.querySelector('.trouble a[href=\"/runbook#worker-halted\"]')")
            if folder := os.environ.get("TROUBLES_PICTURES"):
                await browser.picture(Path(folder) / "halted.png")
            assert browser.complaints == []

    asyncio.run(look())
