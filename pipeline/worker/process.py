"""The worker process: it starts when its servers are there, and ends with the exit code of its failure."""

import logging.config
import os
import signal
import threading
import time
from importlib.metadata import version
from typing import Any, NoReturn

import faust
import faust.cli.worker
import structlog
from prometheus_client import REGISTRY

from pipeline.columns import core
from pipeline.errors import ChimeraError, ConfigError
from pipeline.transport.garbage import collect_rarely
from pipeline.worker.memory import keep_free_memory
from pipeline.worker.preflight import preflight
from pipeline.worker.waiting_pages import WaitingPages
from pipeline.worker.web import halted, listen, not_ready

_STOP_SECONDS = 3.0  # for the rest of a stop, after the drain
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # a closed terminal sends SIGHUP
_MEANINGLESS = (signal.SIGUSR1, signal.SIGUSR2)

log = structlog.get_logger("chimera.worker")


class worker(faust.cli.worker.worker):  # noqa: N801 (Faust names the command after its class)
    """Start a worker."""

    def on_worker_created(self, worker: Any) -> None:
        """Print no banner: the log is the only output, and says the same."""


class Worker(faust.Worker):
    """Faust's worker, with the preflight before its start and a limit on the time of its stop."""

    app: Any  # pipeline.worker.app.App
    _watchdog: threading.Timer | None = None
    _asked_again = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "quiet": True, "debug": False})  # everything is in the log

    def on_setup_root_logger(self, logger: logging.Logger, level: int) -> None:
        """Leave the log as the settings say; Faust's own method would add a spinner."""
        del logger, level
        self.spinner = None

    def execute_from_commandline(self) -> NoReturn:
        """Run until a signal or a failure."""
        logging.config.dictConfig(dict(self.app.conf.logging_config or {}))
        logging.captureWarnings(capture=True)
        self._log_start()
        for number in _ending():
            signal.signal(number, _end_waiting)  # until Faust's own handlers are in place
        for number in _MEANINGLESS:
            signal.signal(number, _ignored)  # likewise; by default they end the process
        try:
            self._check_servers()
        except ChimeraError as error:
            log.critical(str(error))
            self._say_why(error)
            raise SystemExit(error.exit_code) from None
        collect_rarely()
        keep_free_memory()
        try:
            super().execute_from_commandline()
        except SystemExit as end:
            if self._watchdog:
                self._watchdog.cancel()
            if self.app.failure and not self._asked_again:
                self._say_why(self.app.failure)
            # A thread may still wait for a silent server. The process ends without it: its work isn't acknowledged.
            self._leave(int(end.code or 0))

    def _check_servers(self) -> None:
        """Wait for the servers and check them; the web server's pages are there meanwhile.

        Raises:
            ChimeraError: the worker can't start.
        """
        app = self.app
        app.listeners = listen(app.settings.worker)
        app.note_rebalance()
        REGISTRY.register(app.state_metrics)
        with WaitingPages(app.listeners, lambda: not_ready(app.troubles.lines)):
            app.expect_columns(preflight(app.settings, app.catalog, app.troubles))

    def _say_why(self, failure: ChimeraError) -> None:
        """Say at `/ready` for some seconds why the worker halts, so that the monitor sees it; a signal ends it at once.

        Faust has stopped, or hasn't started: the worker is in no group, and holds no partition.
        """
        worker = self.app.settings.worker
        if not (worker.halt_seconds and self.app.listeners):  # without a port, nobody asks
            return
        for number in (*_ending(), *_MEANINGLESS):
            signal.signal(number, lambda *_: os._exit(failure.exit_code))
        for listener in self.app.listeners:
            listener.close()
        self.app.troubles.report("halt", str(failure), usual=True)  # the log has it already
        try:
            listeners = listen(worker)
        except ConfigError:  # taken by somebody in between; the log has the reason
            return
        with WaitingPages(listeners, lambda: halted(failure)):
            time.sleep(worker.halt_seconds)

    def _log_start(self) -> None:
        settings = self.app.settings
        log.info(
            "starting",
            version=version("chimera-pipeline"),
            process=os.getpid(),
            group=settings.kafka.group_id,
            kafka=settings.kafka.bootstrap_servers,
            clickhouse=settings.clickhouse.address,
            web=f"{settings.worker.web_host}:{settings.worker.web_port}",
        )
        if why := core.why_not():
            log.warning("the compiled core isn't used, numpy decodes the records", why=why)

    def install_signal_handlers(self) -> None:
        """Stop at a signal that ends processes, and ignore stray ones.

        Faust's own handlers of these print stacks between the lines of the log, or start a debugger.
        """
        super().install_signal_handlers()
        for number in _ending():
            self.loop.add_signal_handler(number, self._on_ending, number)
        for number in _MEANINGLESS:
            self.loop.add_signal_handler(number, _ignored, number)

    def _on_ending(self, number: signal.Signals) -> None:
        self._flag_as_shutdown_by_signal()
        self._schedule_shutdown(number)

    def _schedule_shutdown(self, number: signal.Signals) -> None:
        """Stop; end the process when the time for the stop is over, even if a server is silent."""
        seconds = self.app.settings.worker.drain_seconds + _STOP_SECONDS
        if self._watchdog is not None:
            self._asked_again = True  # the first signal may be that of a halt
        else:
            self._watchdog = threading.Timer(seconds, self._leave_unfinished, [seconds])
            self._watchdog.daemon = True
            self._watchdog.start()
        super()._schedule_shutdown(number)

    def _leave_unfinished(self, seconds: float) -> None:
        log.warning("the stop takes too long, uncommitted records will be delivered again", after_seconds=seconds)
        self._leave(0)

    def _leave(self, code: int) -> NoReturn:
        code = self.app.failure.exit_code if self.app.failure else code
        log.info("stopped", exit_code=code)
        os._exit(code)


def _ending() -> tuple[signal.Signals, ...]:
    """Return the signals that end the worker; SIGHUP isn't one under `nohup`, which has it ignored."""
    return tuple(
        number for number in _ENDING if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    )


def _end_waiting(_number: int, _frame: object) -> NoReturn:
    """End the process at once: the worker has consumed nothing yet, and may wait in a call that isn't interrupted."""
    try:
        log.info("stopped", exit_code=0)
    finally:
        os._exit(0)


def _ignored(number: int, _frame: object = None) -> None:
    log.warning("signal ignored", signal=signal.Signals(number).name)
