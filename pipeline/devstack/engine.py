"""A ClickHouse server in a Python process, out of the chdb-core wheel.

usage: python -m pipeline.devstack.engine CONFIG_DIRECTORY DATA_DIRECTORY

The wheel holds the whole engine. Its one-query entry reads config.xml from the working directory and knows how to
listen for native and HTTP clients; a last query that waits for the end of a pipe keeps it serving. Runs until SIGTERM
or SIGINT; an engine that ends without them, because a port is taken or the data are in use, is a failure: exit code 1.
"""

import ctypes
import importlib.util
import os
import signal
import sys
import threading
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any

from pipeline.devstack.extra import package_directory

_SHUTDOWN_SECONDS = 15.0


def main(config_directory: Path, data_directory: Path) -> int:
    """Serve until a signal says stop."""
    engine = _load()
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
    """Start both listeners, and block until the pipe ends."""
    pipe = f"file('/dev/fd/{held_open}', LineAsString, 'line String')"
    sql = (
        "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; "  # noqa: S608 (nothing in it is from outside)
        f"SELECT count() FROM {pipe} SETTINGS max_execution_time = 0"
    )
    # The format given here becomes the server's default for HTTP clients: TabSeparated, as everywhere else.
    result = engine.query(sql, "TabSeparated", path=str(data_directory))
    if result.has_error():
        print(result.error_message(), file=sys.stderr, flush=True)  # noqa: T201 (standard error is the log)


def _load() -> Any:
    """Load the engine without `import chdb`, which would start an embedded engine that leaves no place for a server."""
    directory = package_directory("chdb")
    library = str(directory / "_chdb.abi3.so")
    # The engine brings its own allocator; its symbols must win over those that are loaded already.
    ctypes.CDLL(library, mode=sys.getdlopenflags() | getattr(os, "RTLD_DEEPBIND", 0))
    name = "chdb._chdb"
    spec = importlib.util.spec_from_file_location(name, library, loader=ExtensionFileLoader(name, library))
    if spec is None or spec.loader is None:
        raise ImportError(f"{library} is no extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    # The engine's own threads don't all end with the main thread: leave without waiting for them.
    os._exit(main(Path(sys.argv[1]), Path(sys.argv[2]).resolve()))
