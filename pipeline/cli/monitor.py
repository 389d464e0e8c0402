"""`chimera monitor`: watch the pipeline, and serve its page and metrics."""

import logging.config

import click

from pipeline.config import load_settings
from pipeline.logs import logging_config
from pipeline.operations.monitor.process import run_monitor


@click.command()
def monitor() -> None:
    """Watch the pipeline from outside, and serve its state.

    Looks every few seconds at the consumer group, the topics, the tables and the dead letters, and writes nothing.
    It is no worker, so it also sees that no worker runs. Serves a page at /, metrics at /metrics, and the same state at
    /status.json; at CHIMERA_MONITOR__WEB_HOST and CHIMERA_MONITOR__WEB_PORT, 127.0.0.1:6067 unless set. A server that
    doesn't answer is a part of that state, and no failure of the monitor.

    \b
    Exit codes:
      0   ended by SIGTERM or Ctrl-C
      78  a setting, topics.yaml or a schema is wrong, or the port is taken

    \b
    Examples:
      chimera monitor
      CHIMERA_MONITOR__WEB_PORT=7000 chimera monitor
    """
    settings = load_settings()
    logging.config.dictConfig(logging_config(settings.log))
    run_monitor(settings)
