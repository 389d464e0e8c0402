"""The model for commands: looked at by the command itself, or asked from a running monitor."""

import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from pipeline.catalog import load_catalog
from pipeline.config import Settings
from pipeline.errors import ConfigError, UnavailableError
from pipeline.logs import be_silent
from pipeline.operations.monitor.state import PipelineState
from pipeline.operations.monitor.watch import Watch

_BETWEEN_SECONDS = 2.0
_MODEL: TypeAdapter[PipelineState] = TypeAdapter(PipelineState)


def looked_at_once(settings: Settings) -> PipelineState:
    """Look at everything twice, so that there are rates.

    Raises:
        ConfigError: topics.yaml or a schema is wrong.
    """
    be_silent()  # the state says it
    watch = Watch(settings, load_catalog(settings))
    watch.look_once()
    time.sleep(_BETWEEN_SECONDS)
    watch.look_once()
    return watch.state()


def from_monitor(url: str, answer_seconds: float) -> PipelineState:
    """Ask a running monitor.

    Raises:
        ConfigError: the URL isn't one.
        UnavailableError: the monitor doesn't answer, or answers something else.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ConfigError(f"--url: expected http://host:port of a monitor, got {url}")
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/status.json", timeout=answer_seconds) as answer:  # noqa: S310 (checked)
            return _MODEL.validate_json(answer.read())
    except (OSError, ValueError, urllib.error.URLError) as error:
        reason = (
            "another version's answer" if isinstance(error, ValidationError) else str(getattr(error, "reason", error))
        )
        raise UnavailableError(f"monitor at {url} doesn't answer as expected: {reason}") from None
