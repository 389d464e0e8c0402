"""ClickHouse server in a Python process, from the chdb-core wheel.

usage: python -m pipeline.devstack.engine CONFIG_DIRECTORY DATA_DIRECTORY

The wheel holds the whole engine. Its entry point for one query reads config.xml from the working directory and can
listen for native and HTTP clients. A query that reads a pipe to its end keeps the engine serving. The process runs
until SIGTERM or SIGINT. If the engine ends earlier, because a port is taken or the data are in use, the exit code is 1.
"""

import ctypes
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any

from pipeline.devstack.extra import package_directory

_SHUTDOWN_SECONDS = 15.0


def main(config_directory: Path, data_directory: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code.

    Args:
        config_directory: has config.xml.
        data_directory: for the data.
        prepare: called when the engine is loaded, before it starts.
    """
    engine = _load()
    prepare()
    engine.set_signal_handlers_enabled(0)
    os.chdir(config_directory)
    held_open, write_end = os.pipe()
    serving = threading.Thread(target=_serve, args=(engine, held_open, data_directory), daemon=True)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    serving.start()
    while serving.is_alive() and not stop.wait(0.5):
        pass
    os.close(write_end)
    serving.join(_SHUTDOWN_SECONDS)
    return 0 if stop.is_set() else 1


def _serve(engine: Any, held_open: int, data_directory: Path) -> None:
    """Start both listeners, and block until the pipe is closed."""
    pipe = f"file('/dev/fd/{held_open}', LineAsString, 'line String')"
    sql = (
        "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; "  # noqa: S608 (no part of it comes from outside)
        f"SELECT count() FROM {pipe} SETTINGS max_execution_time = 0"
    )
    # This format becomes the server's default for HTTP clients. TabSeparated is ClickHouse's own default.
    result = engine.query(sql, "TabSeparated", path=str(data_directory))
    if result.has_error():
        print(result.error_message(), file=sys.stderr, flush=True)  # noqa: T201 (standard error is the log)


def _load() -> Any:
    """Load the engine without `import chdb`, which would start an embedded engine and so prevent a server."""
    directory = package_directory("chdb")
    library = str(directory / "_chdb.abi3.so")
    # The engine has its own allocator; its symbols must take precedence over loaded ones.
    ctypes.CDLL(library, mode=sys.getdlopenflags() | getattr(os, "RTLD_DEEPBIND", 0))
    name = "chdb._chdb"
    spec = importlib.util.spec_from_file_location(name, library, loader=ExtensionFileLoader(name, library))
    if spec is None or spec.loader is None:
        raise ImportError(f"{library} is no extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    # Some threads of the engine outlive the main thread: exit without waiting for them.
    os._exit(main(Path(sys.argv[1]), Path(sys.argv[2]).resolve()))
