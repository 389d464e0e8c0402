"""Each trouble, made on real servers: /ready names it within ten seconds, and the log has one line for it.

`TROUBLES_TABLE=1 pytest -s` prints the rows of the table in docs/operations.md.
"""

import http.client
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from clickhouse_driver import Client
from support.containers import ContainerStack
from support.events import events, publish, settled
from support.processes import Worker, eventually, prepare

from pipeline.catalog import Family
from pipeline.clickhouse.access import Limit, load_roles
from pipeline.config import Settings, env_name, load_settings
from pipeline.devstack import Stack
from pipeline.devstack.clickhouse import ClickHouseServer, ClickHouseUser, users_of
from pipeline.errors import HaltError
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration

_SECONDS = 10.0
_RECORDS, _POISON = 30, 100
_WRITER = "chimera_writer"
_READ_ONLY, _DISK_FULL = 242, 243
_ADDED = ", ".join(
    f"ADD COLUMN {column} UInt8 {default}"
    for column, default in {"tomorrow": "DEFAULT 7", "computed": "MATERIALIZED 7", "other": "ALIAS 7"}.items()
)
_CUSTOM_CODES = {"allow_custom_error_code_in_throwif": Limit(1)}


@dataclass(frozen=True, slots=True)
class _Scene:
    """A worker, its servers, and what is done to them."""

    settings: Settings
    family: Family
    worker: Worker
    stack: Stack | ContainerStack
    server: ClickHouseServer

    def flow(self, value: bytes = b"") -> None:
        """Publish valid records, or poison."""
        valid = [Encoder(self.family).encode(event).value for event in events(self.family.name, _RECORDS)]
        publish(self.settings, self.family.topic.name, [value] * _POISON if value else valid)

    def freeze(self) -> None:
        """Stop the server without closing its connections, while records come."""
        self.server.pause()
        self.flow()

    def refuse(self, code: int) -> None:
        """Have the server refuse each block with this error."""
        check = f"throwIf(latency_ms >= 0, 'made by a test', toInt16({code})) = 0"
        self.execute(f"ALTER TABLE {self.family.table} ADD CONSTRAINT made CHECK {check}")
        self.flow()

    def accept(self) -> None:
        """Have it take blocks again."""
        self.execute(f"ALTER TABLE {self.family.table} DROP CONSTRAINT made")

    def execute(self, sql: str) -> None:
        """Execute a statement as the server's administrator."""
        with Client("127.0.0.1", port=self.server.port, database=self.settings.clickhouse.database) as client:
            client.execute(sql)


@dataclass(frozen=True, slots=True)
class _Trouble:
    """A trouble, its end, and what /ready says of it."""

    name: str
    begin: Callable[[_Scene], object]
    end: Callable[[_Scene], object]
    says: str


_TROUBLES = [
    _Trouble("Kafka is stopped", lambda it: it.stack.kafka.kill(), lambda it: it.stack.kafka.start(), "Kafka: "),
    _Trouble("Kafka is frozen", lambda it: it.stack.kafka.pause(), lambda it: it.stack.kafka.resume(), "Kafka: "),
    _Trouble("ClickHouse is stopped", lambda it: it.server.stop(), lambda it: it.server.start(), "ClickHouse: "),
    _Trouble(
        "ClickHouse is frozen, no records come",
        lambda it: it.server.pause(),
        lambda it: it.server.resume(),
        "doesn't answer",
    ),
    _Trouble(
        "ClickHouse is frozen, records come",
        lambda it: it.freeze(),
        lambda it: it.server.resume(),
        "doesn't answer",  # the server's line; the family's follows when its own step has waited
    ),
    _Trouble(
        "ClickHouse has too many parts, no records come",
        lambda it: it.execute(f"ALTER TABLE {it.family.table} MODIFY SETTING max_parts_in_total = 1"),
        lambda it: it.execute(f"ALTER TABLE {it.family.table} RESET SETTING max_parts_in_total"),
        "ui_events: ClickHouse",
    ),
    _Trouble(
        "a table is read-only (code 242)",
        lambda it: it.refuse(_READ_ONLY),
        lambda it: it.accept(),
        "ui_events: ClickHouse",
    ),
    _Trouble(
        "ClickHouse's disk is full (code 243)",
        lambda it: it.refuse(_DISK_FULL),
        lambda it: it.accept(),
        "ui_events: ClickHouse",
    ),
    _Trouble("poison records", lambda it: it.flow(b"poison"), lambda _: None, "records rejected"),
]


@pytest.fixture
def server(settings: Settings, tmp_path: Path) -> Iterator[ClickHouseServer]:
    """ClickHouse of the test alone, with a writer as access.yaml declares it."""
    with ClickHouseServer(tmp_path / "clickhouse", users=_users(settings)) as running:
        yield running


def _users(settings: Settings, *, without: str = "") -> tuple[ClickHouseUser, ...]:
    roles = load_roles(settings.clickhouse.database, settings.topics.file)
    writer = next(role for role in roles if role.name == _WRITER)
    grants = tuple(grant for grant in writer.grants if grant != without)
    return users_of([replace(writer, grants=grants, limits={**writer.limits, **_CUSTOM_CODES})])


def test_each_trouble_is_named_within_ten_seconds(
    environ: dict[str, str],
    stack: Stack | ContainerStack,
    server: ClickHouseServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One worker lives through all of them, stores each valid record once, and is ready after each."""
    monkeypatch.setenv(env_name("clickhouse", "port"), str(server.port))
    settings = load_settings()
    family = prepare(settings).family("ui_events")
    environ |= {env_name("clickhouse", "port"): str(server.port), env_name("worker", "reject_window_seconds"): "8"}
    writer = dict.fromkeys([env_name("clickhouse", "user"), env_name("clickhouse", "password")], _WRITER)
    seconds = dict[str, float]()
    with Worker(environ | writer, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        scene = _Scene(settings, family, worker, stack, server)
        scene.flow()
        for trouble in _TROUBLES:
            seconds[trouble.name] = _live_through(trouble, scene)
        settled(worker, settings, family, 4 * _RECORDS + _POISON)
        seconds |= _lose_a_grant(scene)
    scene.execute(f"ALTER TABLE {family.table} {_ADDED}")
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, _RECORDS)
        (line,) = worker.lines("left to their defaults")
        assert "tomorrow UInt8 DEFAULT, computed UInt8 MATERIALIZED, other UInt8 ALIAS" in line
        began = time.monotonic()
        worker.kill()
        eventually(lambda: _refused(settings), "killed")
        seconds["the worker is killed"] = time.monotonic() - began
    with Client("127.0.0.1", port=server.port, database=settings.clickhouse.database) as client:
        ((stored,),) = client.execute(f"SELECT count() FROM {family.table}")
    assert stored == 5 * _RECORDS
    if os.environ.get("TROUBLES_TABLE"):
        print("".join(f"\n| {name} | {time:.1f} s |" for name, time in seconds.items()))  # noqa: T201 (asked for)
    assert {name: time for name, time in seconds.items() if time > _SECONDS} == {}


def _lose_a_grant(scene: _Scene) -> dict[str, float]:
    """Take the right to insert from the worker's user; return the seconds until it is known, without and with records.

    The development server reads grants from its file when it starts, so it is started again.
    """
    worker, settings, server = scene.worker, scene.settings, scene.server
    grant, seconds = f"INSERT ON {settings.clickhouse.database}.{scene.family.table}", dict[str, float]()
    server.stop()
    with ClickHouseServer(server.directory, users=_users(settings, without=grant)):
        began = time.monotonic()
        worker.wait_for(lambda: "INSERT" in worker.why_not_ready, "a grant is gone, no records come")
        seconds["a grant is taken away, no records come"] = time.monotonic() - began
        scene.flow()
        began = time.monotonic()
        eventually(lambda: _refused(settings), "a grant is gone, records come")
        seconds["a grant is taken away, records come: exit code 70"] = time.monotonic() - began
        assert worker.wait() == HaltError.exit_code
    server.start()
    return seconds


def _live_through(trouble: _Trouble, scene: _Scene) -> float:
    """Make a trouble and end it; return the seconds until /ready named it."""
    worker = scene.worker
    worker.wait_for(lambda: worker.ready, f"ready before: {trouble.name}")
    lines, began = len(worker.lines("trouble begins")), time.monotonic()
    trouble.begin(scene)
    worker.wait_for(lambda: trouble.says in worker.why_not_ready, trouble.name)
    seconds = time.monotonic() - began
    assert worker.metric("chimera_ready") == 0
    trouble.end(scene)
    worker.wait_for(lambda: worker.ready, f"ready after: {trouble.name}")
    parts = len(("ClickHouse", "Kafka", "ui_events", "session_stats"))
    assert 1 <= len(worker.lines("trouble begins")) - lines <= parts, "a line for each part, not for each attempt"
    return seconds


def _refused(settings: Settings) -> bool:
    """True if nobody answers /ready."""
    connection = http.client.HTTPConnection("127.0.0.1", settings.worker.web_port, timeout=5)
    try:
        connection.request("GET", "/ready")
        connection.getresponse().read()
    except ConnectionError:
        return True
    finally:
        connection.close()
    return False
