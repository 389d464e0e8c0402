"""No value of a setting leads to a traceback: the worker starts up with it, or it is refused in one line."""

import os
import string
from collections.abc import Mapping

import pytest
from confluent_kafka.admin import AdminClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline.catalog import Catalog, load_catalog
from pipeline.clickhouse.client import connect
from pipeline.config import Settings, env_name, env_names, load_settings
from pipeline.errors import ChimeraError, ConfigError
from pipeline.kafka.client import client_config
from pipeline.kafka.registry import SchemaRegistry
from pipeline.worker.app import App
from pipeline.worker.web import listen

pytestmark = pytest.mark.untraced  # other tests reach the same lines, and the tracer doubles the time of many examples

_BASE = {env_name("privacy", "hash_key"): "for-tests-only-and-not-a-secret!"}
_ODD = [
    *(
        "",
        " ",
        "/",
        "a/b",
        "..",
        "../../x",
        "a..b",
        "-",
        "--help",
        "a" * 249,
        "a" * 250,
        "a" * 5000,
        "é" * 200,
        "%s%n{}",
    ),
    *(
        "\x00",
        "a\x00b",
        "a\nb",
        "\r\n",
        "\t",
        "\x1b[31m",
        "\ud800",
        "\udcff",
        "\u202e",
        "\ufeff",
        "\U0001d538",
        "a\u00a0b",
    ),
    *("0", "-1", "1e400", "-inf", "nan", "1_0", "٣", "9" * 400, "0x10", "2147483648", "9223372036854775808", "1e-9"),
    *(
        "[::1]:9092",
        "[::]:1",
        "[:::]:9092",
        "a:99999",
        "a:0",
        "a_b:1",
        f"{'a' * 64}.b:1",
        "a..b:1",
        "xn--a:1",
        "::",
        "[x]:1",
    ),
    *(
        "http://a..b",
        "http://a:99999",
        "http://[::1",
        "http://[::1]:8081/x",
        f"http://{'a' * 64}/",
        "http://a b",
        "http://é",
    ),
    *(
        "http://a:b@c",
        "http://a/\u00e9",
        "http://a?b#c",
        "https://a:",
        "HTTP://A",
        "{}",
        "[]",
        '{"a": 1}',
        "null",
        "true",
    ),
    *(
        "/dev/null",
        "/",
        "/proc/self/mem",
        "-----BEGIN CERTIFICATE-----\n" + "a" * 3000,
        "SSL",
        "SASL_SSL",
        "OAUTHBEARER",
    ),
]
_VALUES = st.sampled_from(_ODD) | st.text() | st.text(string.digits + ".-+eE_:/[]@,", max_size=20)


def _loaded(environ: Mapping[str, str]) -> Settings | None:
    """Return the settings of an environment; None if it is refused in one line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", dict(environ))  # the system's own takes neither NUL nor every surrogate
        try:
            return load_settings()
        except ConfigError as error:
            line = str(error)
    assert line.splitlines() == [line]
    assert "CHIMERA_" in line
    return None


_catalogs: dict[str, Catalog] = {}  # by the settings that load_catalog reads; most variables are of others


def _catalog(settings: Settings) -> Catalog:
    read = f"{settings.topics!r} {settings.schemas!r}"
    if read not in _catalogs:
        _catalogs[read] = load_catalog(settings)
    return _catalogs[read]


def _start_up(settings: Settings) -> None:
    """Do with the settings what worker and commands do before they reach a server."""
    catalog = _catalog(settings)
    assert App(settings, catalog).conf.id == settings.kafka.group_id
    AdminClient({**client_config(settings.kafka), "log_level": 0})
    if settings.registry.url:
        SchemaRegistry(settings.registry)
    for host in (settings.clickhouse.host, settings.worker.web_host):
        host.encode("idna")  # as the resolver does; without it a value would have to reach a name server
    if settings.worker.web_host in {"127.0.0.1", "::1"}:
        for listener in listen(settings.worker):
            listener.close()
    connect(settings.clickhouse)


def _refusal(settings: Settings) -> str:
    """Return the line that refuses to start up; empty if nothing does."""
    try:
        _start_up(settings)
    except ChimeraError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", env_names())
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=_VALUES)
def test_a_value_is_taken_or_refused_in_one_line(name: str, value: str) -> None:
    """The settings are loaded, or one line explains why not, for any value of a variable."""
    _loaded(_BASE | {name: value})


@pytest.mark.parametrize("name", env_names())
def test_a_value_that_is_taken_does_not_fail_later(name: str) -> None:
    """Catalog, Faust, clients and resolver take every value that the settings accept, or refuse it in one line."""
    for value in _ODD:
        if settings := _loaded(_BASE | {name: value}):
            line = _refusal(settings)
            assert line.splitlines() in ([], [line]), (name, value)


@given(st.text(min_size=1))
@hypothesis_settings(max_examples=60, deadline=None)
def test_an_unknown_name_is_refused_in_one_line(name: str) -> None:
    """A variable with our prefix and any name at all is explained in one line."""
    assert _loaded(_BASE | {f"CHIMERA_{name}": "x"}) is None
