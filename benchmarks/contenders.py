"""Contenders: the worker, its peers and the yardstick, each started as a process of its own."""

from dataclasses import dataclass, replace
from enum import Enum, auto

from pipeline.config import env_name, env_names


class Runtime(Enum):
    """Environment that a contender is started in."""

    PROJECT = auto()
    """The project's Python."""
    PEERS = auto()
    """A Python with packages that the project's environment can't hold."""
    GO = auto()
    """A program built from benchmarks/yardstick."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way from the topic into the table."""

    name: str
    title: str
    arguments: tuple[str, ...] = ()
    """Arguments on the command line."""
    runtime: Runtime = Runtime.PROJECT
    worker: bool = False
    """True if it is the worker, which keeps state and dead letters in topics of its own."""
    grouped: bool = True
    """True if the contender reads as a consumer group, so the broker knows when it begins; else it prints `READY`."""
    in_server: bool = False
    """True if ClickHouse does the work; CPU time and memory are then spent there."""
    environment: tuple[tuple[str, str], ...] = ()
    """Additional environment variables."""


_WORKER_ARGUMENTS = ("-A", "pipeline", "worker", "--loglevel", "warn")
_CORE = env_name("worker", "compiled_core")

WORKER = Contender("chimera", "Chimera worker", ("-m", "faust", *_WORKER_ARGUMENTS), worker=True)

WITHOUT_RANGES = replace(
    WORKER,
    name="without_ranges",
    title="the same, no ranges committed",
    arguments=("-m", "benchmarks.peers.without_ranges", *_WORKER_ARGUMENTS),
)

WITHOUT_METRICS = replace(
    WORKER,
    name="without_metrics",
    title="the same, nothing counted",
    arguments=("-m", "benchmarks.peers.without_metrics", *_WORKER_ARGUMENTS),
)

WITHOUT_ROLLUP = replace(
    WORKER,
    name="without_rollup",
    title="the same, no session_stats",
    environment=((env_name("rollup", "enabled"), "false"),),
)

WITHOUT_CORE = replace(WORKER, name="without_core", title="the same, numpy path alone", environment=((_CORE, "false"),))

YARDSTICK = Contender("yardstick", "Go yardstick", runtime=Runtime.GO)

ENGINE = Contender(
    "clickhouse_kafka_engine",
    "ClickHouse Kafka engine",
    ("-m", "benchmarks.peers.clickhouse_kafka_engine"),
    in_server=True,
)

PEERS = (
    Contender(
        "stock_faust",
        "Faust agent, take()",
        ("-m", "benchmarks.peers.stock_faust", "--loop", "uvloop", "worker", "--without-web", "--loglevel", "warn"),
    ),
    Contender("plain_loop", "confluent-kafka loop", ("-m", "benchmarks.peers.plain_loop")),
    Contender("quix", "Quix Streams", ("-m", "benchmarks.peers.quix"), runtime=Runtime.PEERS),
    Contender(
        "bytewax",
        "Bytewax",
        ("-m", "bytewax.run", "benchmarks.peers.bytewax_flow"),
        runtime=Runtime.PEERS,
        grouped=False,
    ),
    ENGINE,
)

# While the worker has no compiled core, the numpy path is all of it.
_WITH_CORE = (WITHOUT_CORE,) if _CORE in env_names() else ()

CONTENDERS = (WORKER, *_WITH_CORE, WITHOUT_RANGES, WITHOUT_METRICS, WITHOUT_ROLLUP, YARDSTICK, *PEERS)
USUAL = (WORKER, *_WITH_CORE, YARDSTICK, *PEERS)
"""Contenders of a run that names none."""
