"""Environment of a benchmark: its own servers, a directory for logs, and progress bars in the terminal."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from clickhouse_driver import Client
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.process import ContenderError
from benchmarks.registry import registry
from benchmarks.workload import FAMILY
from pipeline.catalog import load_catalog
from pipeline.config import ClickHouseSettings, KafkaSettings, RegistrySettings, Settings, load_settings
from pipeline.devstack import Stack
from pipeline.devstack.ports import HOST

_COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


@dataclass(frozen=True, slots=True)
class Stage:
    """New servers without topics and tables."""

    stack: Stack
    settings: Settings
    """Settings of the environment, with the addresses of these servers."""
    directory: Path
    progress: Progress

    def bar(self, title: str, total: int) -> Callable[[int], None]:
        """Add a progress bar; call the result with the number of finished items."""
        task = self.progress.add_task(title, total=total)
        return lambda done: self.progress.update(task, completed=done)

    def clickhouse_version(self) -> str:
        """Version of the ClickHouse server."""
        client = Client(HOST, port=self.stack.clickhouse.port)
        ((version,),) = client.execute("SELECT version()")
        client.disconnect()
        return str(version)


@contextmanager
def stage() -> Iterator[Stage]:
    """Start a broker, a ClickHouse server and a schema registry with one schema; stop them afterwards.

    Raises:
        UnavailableError: a server didn't start.
        ConfigError: a setting is wrong.
    """
    progress = Progress(*_COLUMNS, console=Console(stderr=True))
    with _directory() as directory, progress, Stack(directory) as stack:
        settings = load_settings()
        family = load_catalog(settings).family(FAMILY)
        with registry(f"{family.topic.name}-value", family.schema.raw) as url:
            servers = {
                "kafka": KafkaSettings(bootstrap_servers=stack.kafka.bootstrap_servers),
                "clickhouse": ClickHouseSettings(host=HOST, port=stack.clickhouse.port),
                "registry": RegistrySettings(url=url),
            }
            yield Stage(stack, settings.model_copy(update=servers), directory, progress)


@contextmanager
def _directory() -> Iterator[Path]:
    """Create a directory for one run; it is kept after a failure, because the error names a log in it."""
    directory, keep = Path(mkdtemp(prefix="chimera-bench-")), False
    try:
        yield directory
    except ContenderError:
        keep = True
        raise
    finally:
        if not keep:
            shutil.rmtree(directory)
