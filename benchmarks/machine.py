"""The machine that a benchmark runs on: processors and versions in words, CPU time of others, and busy neighbours."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from textwrap import fill

import psutil

from benchmarks.process import cpu_seconds
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


class Others:
    """Watch over the CPU time of all processes but our own, from now on.

    Args:
        pids: our own processes beside this one; each counts with its ended children.
    """

    def __init__(self, pids: Sequence[int | None]) -> None:
        self._own = [psutil.Process(pid) for pid in {os.getpid(), *filter(None, pids)}]
        self._begun, self._before = time.monotonic(), self._cpu_seconds()

    def cores(self, besides_seconds: float = 0.0) -> float:
        """Mean number of cores that others used, and the hypervisor took; `besides_seconds` of CPU are ours too."""
        used = self._cpu_seconds() - self._before - besides_seconds
        return max(0.0, used / (time.monotonic() - self._begun))

    def _cpu_seconds(self) -> float:
        times = psutil.cpu_times()
        busy = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
        return busy - sum(cpu_seconds(process) for process in self._own)


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
