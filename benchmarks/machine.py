"""The machine that a benchmark runs on: processors and versions in words, CPU time of others, and busy neighbours."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from textwrap import fill

import psutil

from benchmarks.process import cpu_seconds, family
from pipeline.devstack.jars import KAFKA_VERSION

_LIBRARIES = ("faust-streaming", "aiokafka", "confluent-kafka", "fastavro", "clickhouse-driver", "numpy", "uvloop")
_LINE_WIDTH = 120
# Ends with its parent, even one that was killed.
_BUSY = """
import os, time
parent = os.getppid()
while os.getppid() == parent:
    end = time.monotonic() + 0.2
    while time.monotonic() < end: pass
"""


def machine(clickhouse_version: str, *, besides: str = "") -> str:
    """Paragraph about the machine and the versions; `besides` is added at the end."""
    versions = [f"{name} {version(name)}" for name in _LIBRARIES]
    memory = psutil.virtual_memory().total / 2**30
    text = (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores ({_cpu_model()}), {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"ClickHouse {clickhouse_version}, Kafka {KAFKA_VERSION}, {', '.join(versions)}{besides}."
    )
    return fill(text, _LINE_WIDTH, break_on_hyphens=False)


def load_average() -> float:
    """Load average of the last minute."""
    return os.getloadavg()[0]


def others_cpu_seconds() -> float:
    """CPU time since the machine's start of all processes but this one and its descendants, in seconds.

    It includes what the hypervisor took.
    """
    times = psutil.cpu_times()
    busy = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
    return float(busy - sum(map(cpu_seconds, family(os.getpid()))))


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Run processes that compute all the time, while the context is open."""
    processes = [subprocess.Popen([sys.executable, "-I", "-S", "-c", _BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
