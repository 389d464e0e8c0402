"""The monitor as a process: it looks and serves until a signal ends it."""

import signal
import threading
from collections.abc import Callable

import structlog

from pipeline.catalog import load_catalog
from pipeline.config import Settings
from pipeline.operations.monitor.watch import Watch
from pipeline.operations.monitor.web import MonitorWeb

_END_SECONDS = 1.0

log = structlog.get_logger("chimera.monitor")


def run_monitor(settings: Settings, ready: Callable[[], None] = lambda: None) -> None:
    """Run the monitor until SIGINT or SIGTERM.

    Args:
        settings: both servers, the group, and the monitor's own.
        ready: called when the web server listens; the servers may still be away.

    Raises:
        ConfigError: a schema or topics.yaml is wrong, or the port is taken.
    """
    watch = Watch(settings, load_catalog(settings))
    web = MonitorWeb(settings.monitor, watch.state)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    serving = threading.Thread(target=web.serve, name="web", daemon=True)
    serving.start()
    watch.start()
    log.info("watching", page=f"http://{settings.monitor.web_host}:{settings.monitor.web_port}/")
    ready()
    stopping.wait()
    web.stop()
    watch.stop(_END_SECONDS)
