"""Environment of a benchmark: its own servers, a directory for logs, and progress in the terminal."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from clickhouse_driver import Client
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.registry import registry
from benchmarks.workload import FAMILY
from pipeline.catalog import load_catalog
from pipeline.config import ClickHouseSettings, KafkaSettings, RegistrySettings, Settings, load_settings
from pipeline.devstack import Stack
from pipeline.devstack.memory_files import memory_directory
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
    failures: list[str] = field(default_factory=list)
    """Failures that didn't end the benchmark; if there is one, the logs are kept."""

    def bar(self, title: str, total: int) -> Callable[[int], None]:
        """Show a progress bar in place of the one before; call the result with the number of finished items."""
        for finished in self.progress.task_ids:
            self.progress.remove_task(finished)
        task = self.progress.add_task(title, total=total)
        return lambda done: self.progress.update(task, completed=done)

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        self.progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

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
    failures: list[str] = []
    console = Console(stderr=True)
    progress = Progress(*_COLUMNS, console=console, disable=not console.is_terminal)
    with _directory(failures) as directory, progress, Stack(directory) as stack:
        settings = load_settings()
        family = load_catalog(settings).family(FAMILY)
        with registry(f"{family.topic.name}-value", family.schema.raw) as url:
            servers = {
                "kafka": KafkaSettings(bootstrap_servers=stack.kafka.bootstrap_servers),
                "clickhouse": ClickHouseSettings(host=HOST, port=stack.clickhouse.port),
                "registry": RegistrySettings(url=url),
            }
            yield Stage(stack, settings.model_copy(update=servers), directory, progress, failures)


@contextmanager
def _directory(failures: list[str]) -> Iterator[Path]:
    """Create a directory for one run; after a failure its logs are kept, because the error names one of them."""
    directory = Path(tempfile.mkdtemp(prefix="chimera-bench-", dir=memory_directory()))
    try:
        yield directory
    except Exception as error:
        failures.append(str(error))
        raise
    finally:
        for path in directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif not (failures and path.suffix == ".log"):
                path.unlink()
        if not failures:
            directory.rmdir()
