"""Conditions of `chimera tap --where`."""

from typing import Any

import click
import pytest

from pipeline.catalog import load_catalog
from pipeline.cli.tap_where import Where
from pipeline.config import Settings

_UI = load_catalog(Settings()).family("ui_events")
_LLM = load_catalog(Settings()).family("llm_events")
_FIELDS: dict[str, Any] = {
    "ts": 1_795_521_600_000,  # 2026-11-24T12:00Z
    "event_type": "error",
    "latency_ms": 1500,
    "user_agent": "Mozilla/5.0 (X11)",
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("event_type = error", True),
        ("event_type != error", False),
        ("latency_ms > 1000", True),
        ("latency_ms>1000 and latency_ms <= 1500", True),
        ("latency_ms > 200 AND event_type = overlay_open", False),
        ("latency_ms = 1500.0", True),
        ("user_agent ~ ^Mozilla", True),
        ("user_agent = 'Mozilla/5.0 (X11)'", True),
        ("ts >= 2026-11-24T12:00Z", True),
        ("ts > 2026-11-24T14:00+02:00", False),
        ("ts > 1969-12-31", True),
        ("ts < 1900-01-01T00:00Z", False),
        ("ts ~ ^2026-11-24T12", True),
        ("partition = 3 and offset >= 7", True),
        ("offset < 7", False),
        ("metadata = x", False),
    ],
)
def test_conditions(text: str, holds: bool) -> None:
    """Numbers compare as numbers, times as times; a record that lacks the field doesn't meet a condition on it."""
    assert Where(_UI, text).holds(_FIELDS, 3, 7) is holds


def test_money_compares_by_its_amount() -> None:
    """A decimal is bytes on the wire."""
    fields = {"cost_usd": (15_477).to_bytes(4, "big", signed=True)}
    assert Where(_LLM, "cost_usd > 0.015 and cost_usd = 0.0154770").holds(fields, 0, 0)


def test_without_conditions_all_records_are_shown() -> None:
    """Also those that can't be decoded."""
    assert Where(_UI, None).holds({}, 0, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected conditions such as"),
        ("event_type", "expected conditions such as"),
        ("event_type = error or latency_ms > 1", "expected conditions such as"),
        ("event_type = error and", "expected conditions such as"),
        ("latency > 1", "latency: unknown key, perhaps latency_ms is meant"),
        ("latency_ms > fast", "latency_ms: expected a number, got 'fast'"),
        ("ts > soon", "ts: expected a time"),
        ("user_agent ~ (", "user_agent: expected a regular expression"),
    ],
)
def test_a_wrong_condition_is_explained(text: str, words: str) -> None:
    """The message has the place and the expected form."""
    with pytest.raises(click.UsageError) as refused:
        Where(_UI, text)
    assert words in str(refused.value.message)
