"""Each trouble, made on real servers: /ready names it within ten seconds, the monitor's metrics within fifteen.

The log has one line for it. `TROUBLES_TABLE=1 pytest -s` prints the rows of the table in docs/operations.md.
"""

import http.client
import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from clickhouse_driver import Client
from pydantic import SecretStr
from support.containers import ContainerStack
from support.events import events, publish, settled
from support.made_troubles import Seconds, add_partition, known, publish_old, see_the_halt
from support.monitors import Monitor, running_monitor
from support.processes import Worker, lag, prepare

from pipeline.catalog import Family, load_catalog
from pipeline.clickhouse.access import Limit, load_roles
from pipeline.config import Settings, env_name, load_settings
from pipeline.devstack import Stack
from pipeline.devstack.clickhouse import ClickHouseServer, ClickHouseUser, users_of
from pipeline.errors import HaltError
from pipeline.operations.doctor import clickhouse_checks
from pipeline.operations.doctor.results import Grade
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration

_READY_SECONDS, _MONITOR_SECONDS = 10.0, 15.0
_MONITOR_INTERVAL_SECONDS = 5.0  # the default
_HALT_SECONDS = 60.0  # the default, 10 s, is short for all that is looked at
_SESSION_SECONDS = 20  # the default, 45 s, would be waited for
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
    monitor: Monitor

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

    def execute(self, sql: str) -> object:
        """Execute a statement as the server's administrator."""
        with Client("127.0.0.1", port=self.server.port, database=self.settings.clickhouse.database) as client:
            answer: object = client.execute(sql)
        return answer

    def measures(self, sample: str) -> bool:
        """Tell whether the monitor's metrics have a sample of this form."""
        return re.search(f"^chimera_monitor_{sample}$", self.monitor.ask("/metrics").decode(), re.MULTILINE) is not None


@dataclass(frozen=True, slots=True)
class _Trouble:
    """A trouble, its end, what /ready says of it, and the form of the monitor's sample."""

    name: str
    begin: Callable[[_Scene], object]
    end: Callable[[_Scene], object]
    says: str
    sample: str


_KAFKA_AWAY, _CLICKHOUSE_AWAY = (rf'up{{server="{name}"}} 0\.0' for name in ("kafka", "clickhouse"))
_ERROR = r'clickhouse_errors_total{error="%s"} [1-9].*'
_HALTED = r'trouble{.*trouble="worker-halted".*} 1\.0'
_NO_MEMBERS = r"group_members 0\.0"
_OF_FAMILY = r'%s{family="ui_events"} %s'

_TROUBLES = [
    _Trouble(
        "Kafka is stopped",
        lambda it: it.stack.kafka.kill(),
        lambda it: it.stack.kafka.start(),
        "Kafka: ",
        _KAFKA_AWAY,
    ),
    _Trouble(
        "Kafka is frozen",
        lambda it: it.stack.kafka.pause(),
        lambda it: it.stack.kafka.resume(),
        "Kafka: ",
        _KAFKA_AWAY,
    ),
    _Trouble(
        "ClickHouse is stopped",
        lambda it: it.server.stop(),
        lambda it: it.server.start(),
        "ClickHouse: ",
        _CLICKHOUSE_AWAY,
    ),
    _Trouble(
        "ClickHouse is frozen, no records come",
        lambda it: it.server.pause(),
        lambda it: it.server.resume(),
        "doesn't answer",
        _CLICKHOUSE_AWAY,
    ),
    _Trouble(
        "ClickHouse is frozen, records come",
        lambda it: it.freeze(),
        lambda it: it.server.resume(),
        "doesn't answer",  # the server's line; the family's follows when its own step has waited
        _CLICKHOUSE_AWAY,
    ),
    _Trouble(
        "ClickHouse has too many parts, no records come",
        lambda it: it.execute(f"ALTER TABLE {it.family.table} MODIFY SETTING max_parts_in_total = 1"),
        lambda it: it.execute(f"ALTER TABLE {it.family.table} RESET SETTING max_parts_in_total"),
        "ui_events: ClickHouse",
        _ERROR % "TOO_MANY_PARTS",
    ),
    _Trouble(
        "a table is read-only (code 242)",
        lambda it: it.refuse(_READ_ONLY),
        lambda it: it.accept(),
        "ui_events: ClickHouse",
        _ERROR % "TABLE_IS_READ_ONLY",
    ),
    _Trouble(
        "ClickHouse's disk is full (code 243)",
        lambda it: it.refuse(_DISK_FULL),
        lambda it: it.accept(),
        "ui_events: ClickHouse",
        _ERROR % "NOT_ENOUGH_SPACE",
    ),
    _Trouble(
        "poison records",
        lambda it: it.flow(b"poison"),
        lambda _: None,
        "records rejected",
        _OF_FAMILY % ("rejected_ratio", r"(0\.[5-9].*|1\.0)"),
    ),
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


def test_each_trouble_is_named_within_seconds(
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
    environ |= {
        env_name("clickhouse", "port"): str(server.port),
        env_name("worker", "reject_window_seconds"): "8",
        env_name("kafka", "session_timeout_seconds"): str(_SESSION_SECONDS),
        env_name("worker", "halt_seconds"): f"{_HALT_SECONDS:g}",
    }
    writer = dict.fromkeys([env_name("clickhouse", "user"), env_name("clickhouse", "password")], _WRITER)
    seconds = dict[str, Seconds]()
    with running_monitor(environ, interval_seconds=_MONITOR_INTERVAL_SECONDS) as monitor:
        with Worker(environ | writer, tmp_path / "log") as worker:
            worker.wait_until_consuming()
            assert _doctors_verdicts(settings) == [Grade.OK]
            scene = _Scene(settings, family, worker, stack, server, monitor)
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
            seconds |= _lose_the_worker(replace(scene, worker=worker))
    assert scene.execute(f"SELECT count() FROM {family.table}") == [(5 * _RECORDS,)]
    _judge(seconds)


def _judge(seconds: dict[str, Seconds]) -> None:
    if os.environ.get("TROUBLES_TABLE"):
        rows = (f"\n| {name} | {each.ready:.1f} s | {each.monitor:.1f} s |" for name, each in seconds.items())
        print("".join(rows))  # noqa: T201 (asked for)
    killed = seconds.pop("the worker is killed")
    assert killed.ready < _READY_SECONDS
    assert killed.monitor < _SESSION_SECONDS + _MONITOR_SECONDS
    assert {name: each for name, each in seconds.items() if _READY_SECONDS < each.ready < math.inf} == {}
    assert {name: each for name, each in seconds.items() if each.monitor > _MONITOR_SECONDS} == {}


def _lose_a_grant(scene: _Scene) -> dict[str, Seconds]:
    """Take the right to insert from the worker's user; return the seconds until it is known, without and with records.

    The development server reads grants from its file when it starts, so it is started again.
    """
    worker, settings, server = scene.worker, scene.settings, scene.server
    grant, seconds = f"INSERT ON {settings.clickhouse.database}.{scene.family.table}", dict[str, Seconds]()
    denied = _ERROR % "ACCESS_DENIED"
    server.stop()
    with ClickHouseServer(server.directory, users=_users(settings, without=grant)):
        assert _doctors_verdicts(settings) == [Grade.FAIL]
        began = time.monotonic()
        seconds["a grant is taken away, no records come"] = known(
            began, lambda: "INSERT" in worker.why_not_ready, lambda: scene.measures(denied)
        )
        scene.flow()
        began = time.monotonic()
        seconds["a grant is taken away, records come: it halts"] = known(
            began, lambda: _has_halted(worker), lambda: scene.measures(_HALTED)
        )
        worker.wait_for(lambda: scene.measures(_NO_MEMBERS), "it holds no partition while it says why")
        worker.wait_for(lambda: not _refused(settings), "its web port is open again")
        assert worker.metric("chimera_ready") == 0
        assert worker.metric("chimera_trouble_seconds", part="halt") > 0
        see_the_halt(scene.monitor, "INSERT")
        worker.terminate()  # a supervisor needs not wait
        assert worker.wait() == HaltError.exit_code
    server.start()
    return seconds


def _doctors_verdicts(settings: Settings) -> list[Grade]:
    """Return what the doctor says about the rights of the worker's user."""
    login = settings.clickhouse.model_copy(update={"user": _WRITER, "password": SecretStr(_WRITER)})
    found = clickhouse_checks.tables(settings.model_copy(update={"clickhouse": login}), load_catalog(settings))
    return [each.verdict for each in found if each.check == "grants"]


def _lose_the_worker(scene: _Scene) -> dict[str, Seconds]:
    """Add a partition while the worker is frozen, kill the worker, and let a record grow old; return the seconds."""
    worker, settings, topic = scene.worker, scene.settings, scene.family.topic
    seconds, count = dict[str, Seconds](), topic.partitions + 1
    os.kill(worker.process.pid, signal.SIGSTOP)
    began = time.monotonic()
    add_partition(settings, topic, count)
    alone = _OF_FAMILY % ("unowned_partitions", r"1\.0")
    seconds["one partition has no consumer"] = known(began, None, lambda: scene.measures(alone))
    os.kill(worker.process.pid, signal.SIGCONT)
    worker.wait_for(lambda: worker.metric("chimera_assigned_partitions", topic=topic.name) == count, "taken over")
    worker.wait_for(lambda: worker.ready, "ready with one more partition")
    began = time.monotonic()
    worker.kill()
    refused = known(began, lambda: _refused(settings), lambda: True).ready
    published = time.monotonic()
    publish_old(settings, topic, count + 1)  # while the group still waits for the worker
    soon = _OF_FAMILY % ("retention_left_seconds", r"3\d{3}\..*")
    seconds["retention is about to pass"] = known(published, None, lambda: scene.measures(soon))
    gone = known(began, None, lambda: scene.measures(_NO_MEMBERS)).monitor
    seconds["the worker is killed"] = Seconds(refused, gone)
    return seconds


def _live_through(trouble: _Trouble, scene: _Scene) -> Seconds:
    """Make a trouble and end it; return the seconds until it was known."""
    worker = scene.worker
    worker.wait_for(lambda: worker.ready and not scene.measures(trouble.sample), f"all is well before: {trouble.name}")
    lines, began = len(worker.lines("trouble begins")), time.monotonic()
    trouble.begin(scene)
    metrics = list[float]()

    def named() -> bool:
        seen = trouble.says in worker.why_not_ready
        if seen and not metrics:
            metrics.append(worker.metric("chimera_ready"))
        return seen

    seconds = worker.wait_for(lambda: known(began, named, lambda: scene.measures(trouble.sample)), trouble.name)
    assert metrics == [0]
    trouble.end(scene)
    # Until all is committed, an insert that was under way may fail, and its trouble would be taken for the next one.
    worker.wait_for(lambda: _is_committed(scene) and worker.ready, f"ready after: {trouble.name}")
    parts = len(("ClickHouse", "Kafka", "ui_events", "session_stats"))
    assert 1 <= len(worker.lines("trouble begins")) - lines <= parts, "a line for each part, not for each attempt"
    return seconds


def _has_halted(worker: Worker) -> bool:
    """True if its page says so; between the worker's web server and the halt's, nobody answers."""
    with suppress(OSError, http.client.HTTPException):
        return worker.why_not_ready.startswith("halted: ")
    return False


def _is_committed(scene: _Scene) -> bool:
    return lag(scene.settings, scene.family.topic.name) == 0


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
