"""Log configuration: the pipeline's events and the lines of libraries in one format, console or JSON lines."""

import io
import logging
import logging.config
import os
import sys
from typing import Any

import structlog

from pipeline.config import LogSettings, env_name
from pipeline.errors import ChimeraError

# Lowest level per library; our own loggers are named chimera. Faust and aiokafka log every step of a rebalance, some
# under the names of our classes. The driver logs a stack for each refused connection, the registry's client a line for
# each request.
_NOISY = {
    "aiokafka": logging.WARNING,
    "clickhouse_driver": logging.ERROR,
    "faust": logging.WARNING,
    "httpx": logging.WARNING,
    "httpx2": logging.WARNING,
    "mode": logging.WARNING,
    "pipeline": logging.WARNING,
}
_REPEATED_SECONDS = 30.0
_ORDINARY = {"Heartbeat failed for group %s because it is rebalancing"}
"""Warnings of aiokafka about what is no trouble: a rebalance ends with the line "consuming"."""


class Seldom(logging.Filter):
    """Lets a library warn of trouble alone, and only every 30 s; without a broker, aiokafka logs 60 lines a second."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True for a line of ours, and for a library's line whose text it hasn't logged for 30 seconds.

        Lines about ordinary events are dropped.
        """
        kind = (record.name, str(record.msg))
        if record.name.partition(".")[0] not in _NOISY:
            return True
        if record.msg in _ORDINARY:
            return False
        if record.created - self._said_at.get(kind, float("-inf")) < _REPEATED_SECONDS:
            return False
        self._said_at[kind] = record.created
        return True


def logging_config(settings: LogSettings) -> dict[str, Any]:
    """Return the configuration for `logging.config`, which Faust applies; configure structlog alike."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
    ]
    structlog.configure(
        processors=[*shared[:-1], structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "chimera": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": shared,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    _renderer(settings),
                ],
            }
        },
        "filters": {"seldom": {"()": Seldom}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "chimera", "filters": ["seldom"]}},
        "root": {"level": settings.level, "handlers": ["stderr"]},
        "loggers": {
            name: {"level": max(least, logging.getLevelName(settings.level))} for name, least in _NOISY.items()
        },
    }


def report_failure(error: ChimeraError) -> None:
    """Print a failure from before the settings are known on standard error: one line, or one JSON object if set."""
    if os.environ.get(env_name("log", "format")) == "json":
        logging.config.dictConfig(logging_config(LogSettings(format="json")))
        structlog.get_logger("chimera.worker").critical(str(error))
    else:
        print(f"chimera: {error}", file=sys.stderr)  # noqa: T201 (there is no log yet)


def _renderer(settings: LogSettings) -> Any:
    if settings.format == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty() and "NO_COLOR" not in os.environ)


def accept_any_text() -> None:
    """Let standard output escape characters that its encoding lacks; Python's own way is to raise UnicodeEncodeError.

    The environment chooses the encoding: PYTHONIOENCODING, LC_ALL. A file name may have bytes that even UTF-8 lacks.
    Standard error escapes such characters already.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # else a caller has replaced or closed it
        sys.stdout.reconfigure(errors="backslashreplace")


def be_silent() -> None:
    """Drop our log lines, for a command whose screen shows the same."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
