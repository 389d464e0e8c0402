"""How the log looks: structlog's events and everybody else's records in one form, console or JSON lines."""

import logging
import os
import sys
from typing import Any

import structlog

from pipeline.config import LogSettings

# Faust and aiokafka tell of every step of a rebalance, also in the name of our classes; our own log is named chimera.
# The driver prints a stack for each refused connection.
_NOISY = {
    "aiokafka": logging.WARNING,
    "clickhouse_driver": logging.ERROR,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "pipeline": logging.WARNING,
}


def logging_config(settings: LogSettings) -> dict[str, Any]:
    """Configuration for `logging.config`, and for Faust, which applies it itself; sets structlog up on the way."""
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
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "chimera"}},
        "root": {"level": settings.level, "handlers": ["stderr"]},
        "loggers": {
            name: {"level": max(least, logging.getLevelName(settings.level))} for name, least in _NOISY.items()
        },
    }


def _renderer(settings: LogSettings) -> Any:
    if settings.format == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty() and "NO_COLOR" not in os.environ)
