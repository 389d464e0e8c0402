"""A broker that answers again after a silence: until the controller takes it for alive, it knows of no broker.

librdkafka ends the process (SIGABRT) if such an answer to DescribeCluster has no topic either.
"""

import itertools
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.kafka_cluster import KafkaCluster
from support.kafka_proxy import Reply

pytestmark = pytest.mark.integration

_METADATA = 3
_HEADER = struct.Struct(">ihhih")  # length, API key, version, correlation id, length of the client's id
_WITH_AUTHORIZED_OPERATIONS = range(8, 11)
_WITH_ERROR = 13
_NO_TOPICS = b"\x00\x01"  # no tags in the header; an array without elements
_ROUNDS = 12
_PROGRAMS = {
    "check_connection": """
for _ in range(rounds):
    try:
        check_connection(settings, 3.0)
    except UnavailableError as error:
        print(error)
""",
    "TopicAdmin.read": """
admin = TopicAdmin(settings, answer_seconds=3.0)
for _ in range(rounds):
    try:
        admin.read(["__consumer_offsets", "missing"])
    except UnavailableError as error:
        print(error)
""",
}
_BEGIN = """
import sys
from pipeline.config import KafkaSettings
from pipeline.errors import UnavailableError
from pipeline.kafka.failures import check_connection
from pipeline.kafka.topics import TopicAdmin
settings, rounds = KafkaSettings(bootstrap_servers=sys.argv[1]), int(sys.argv[2])
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KafkaCluster]:
    """Two brokers behind proxies."""
    with KafkaCluster(tmp_path / "cluster") as cluster:
        yield cluster


def _without_brokers() -> Reply:
    """Return a reply for every second request for metadata of no topic: there is no broker."""
    turns = itertools.cycle([False, True])

    def reply(request: bytes) -> bytes | None:
        _, api_key, version, correlation, length = _HEADER.unpack_from(request)
        asked = request[_HEADER.size + max(length, 0) :]
        if api_key != _METADATA or not asked.startswith(_NO_TOPICS) or not next(turns):
            return None
        return _empty_metadata(version, correlation)

    return reply


def _empty_metadata(version: int, correlation: int) -> bytes:
    body = struct.pack(">ib", correlation, 0)  # no tags in the header
    body += struct.pack(">ib", 0, 1)  # not throttled; no brokers
    body += b"\x00" + struct.pack(">ib", -1, 1)  # no cluster id, no controller; no topics
    if version in _WITH_AUTHORIZED_OPERATIONS:
        body += struct.pack(">i", 0)
    if version >= _WITH_ERROR:
        body += struct.pack(">h", 0)
    body += b"\x00"  # no tags
    return struct.pack(">i", len(body)) + body


@pytest.mark.parametrize("program", list(_PROGRAMS))
def test_an_answer_without_brokers_ends_no_process(cluster: KafkaCluster, program: str) -> None:
    """What the worker and the commands ask of a broker at their start, again and again."""
    reply = _without_brokers()
    command = [sys.executable, "-c", _BEGIN + _PROGRAMS[program], cluster.bootstrap_servers, str(_ROUNDS)]
    with ExitStack() as answering:
        for number in (1, 2):
            answering.enter_context(cluster.proxy(number).answering(reply))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
