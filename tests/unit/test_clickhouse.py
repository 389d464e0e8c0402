"""Kind and explanation of each failure of ClickHouse."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from clickhouse_driver import errors as driver_errors

from pipeline.clickhouse.client import connect, describe, explain, explained, is_unclear, kind_of
from pipeline.clickhouse.codes import Code
from pipeline.config import ClickHouseSettings
from pipeline.errors import ConfigError, FailureKind, HaltError, UnavailableError, UnclearError

# From the design, to be compared with the codes in the package.
_RETRY = [159, 202, 203, 209, 210, 225, 236, 241, 242, 243, 252, 254, 279, 285, 286, 289, 319, 425, 439, 999]
_ALSO_RETRY = [86, 95, 96, 160, 173, 198, 216, 364, 373, 394, 473, 499, 529, 677, 692, 733, 735, 745, 749, 777, 1019]
_HALT = [16, 44, 60, 81, 115, 164, 180, 192, 193, 194, 195, 201, 291, 392, 452, 472, 497, 516, 720, 764, 774]
_DEAD_LETTER = [6, 26, 27, 38, 41, 53, 69, 70, 72, 131, 321, 349, 376, 395, 407, 469, 691]
_UNFORESEEN = [1002, 0, 12345]
_KINDS = {
    FailureKind.RETRY: _RETRY + _ALSO_RETRY,
    FailureKind.DEAD_LETTER: _DEAD_LETTER,
    FailureKind.HALT: _HALT + _UNFORESEEN,
}

_SETTINGS = ClickHouseSettings(host="db.example", port=9440, user="writer")


@pytest.mark.parametrize(
    ("code", "kind"),
    [pytest.param(code, kind, id=f"{code} {kind.value}") for kind, codes in _KINDS.items() for code in codes],
)
def test_the_code_of_a_refusal_decides_its_kind(code: int, kind: FailureKind) -> None:
    """The code decides, not the message; an unforeseen code halts."""
    assert kind_of(driver_errors.ServerException("DB::Exception: try again, network, timeout", code)) is kind


@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_every_listed_code_has_its_kind(code: Code) -> None:
    """A listed code decides at once; none is tried again for a while only."""
    error = driver_errors.ServerException("", int(code))
    assert kind_of(error) is code.kind
    assert not is_unclear(error)


@pytest.mark.parametrize("code", _UNFORESEEN)
def test_an_unforeseen_code_is_unclear(code: int) -> None:
    """It may pass, so it is tried again for a while before the worker halts."""
    assert is_unclear(driver_errors.ServerException("", code))
    assert is_unclear(UnclearError("registry"))
    assert not is_unclear(HaltError("table"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        pytest.param(ConnectionRefusedError(111, "Connection refused"), FailureKind.RETRY, id="refused"),
        pytest.param(ConnectionResetError(104, "Connection reset by peer"), FailureKind.RETRY, id="reset"),
        pytest.param(BrokenPipeError(32, "Broken pipe"), FailureKind.RETRY, id="broken pipe"),
        pytest.param(TimeoutError("timed out"), FailureKind.RETRY, id="timed out"),
        pytest.param(socket.gaierror(-2, "Name or service not known"), FailureKind.RETRY, id="name not known"),
        pytest.param(EOFError("Unexpected EOF while reading bytes"), FailureKind.RETRY, id="closed"),
        pytest.param(driver_errors.NetworkError("(db:9000)"), FailureKind.RETRY, id="the driver's network error"),
        pytest.param(driver_errors.SocketTimeoutError("(db:9000)"), FailureKind.RETRY, id="the driver's timeout"),
        pytest.param(UnavailableError("registry"), FailureKind.RETRY, id="UnavailableError"),
        pytest.param(ConfigError("setting"), FailureKind.HALT, id="ConfigError"),
        pytest.param(driver_errors.UnknownPacketFromServerError("?"), FailureKind.HALT, id="another protocol"),
        pytest.param(TypeError("no writer"), None, id="a bug"),
    ],
)
def test_the_type_of_another_failure_decides_its_kind(error: BaseException, kind: FailureKind | None) -> None:
    """Network failures are retried, wrong settings halt, and bugs have no kind."""
    assert kind_of(error) is kind


@pytest.mark.parametrize(
    ("error", "line"),
    [
        pytest.param(
            driver_errors.ServerException("DB::Exception: No\n  such table. Stack trace:\n\n0. x @ 0x1\n1. y", 60),
            "No such table.",
            id="with a stack trace",
        ),
        pytest.param(
            driver_errors.NetworkError("Connection refused (db:9000)"),
            "Connection refused (db:9000)",
            id="driver error",
        ),
        pytest.param(OSError(111, "Connection\nrefused"), "[Errno 111] Connection refused", id="OSError"),
        pytest.param(EOFError(), "EOFError", id="empty"),
        pytest.param(driver_errors.SocketTimeoutError(), "Code: 209.", id="without a message"),
    ],
)
def test_a_failure_is_described_on_one_line(error: BaseException, line: str) -> None:
    """The line has no stack trace of the server and is never empty."""
    assert describe(error) == line


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        pytest.param(OSError("no route"), UnavailableError, " is not available: no route", id="network"),
        pytest.param(
            EOFError(),
            UnavailableError,
            " is not available: EOFError; if the server expects TLS, set CHIMERA_CLICKHOUSE__SECURE",
            id="connection closed",
        ),
        pytest.param(
            driver_errors.ServerException("DB::Exception: writer: Authentication failed: ...", 516),
            HaltError,
            " refuses user 'writer' or the password; check CHIMERA_CLICKHOUSE__USER and CHIMERA_CLICKHOUSE__PASSWORD",
            id="password",
        ),
        pytest.param(driver_errors.ServerException("DB::Exception: Not\nso", 60), HaltError, ": Not so", id="refusal"),
        pytest.param(
            driver_errors.UnknownPacketFromServerError("?"),
            HaltError,
            "; expected the native protocol on this port, not HTTP: check CHIMERA_CLICKHOUSE__PORT",
            id="another protocol",
        ),
    ],
)
def test_an_explanation_names_the_server_and_the_setting(error: BaseException, expected: type, text: str) -> None:
    """The explanation is one line, and its type tells whether to retry."""
    explained = explain(error, _SETTINGS)
    assert type(explained) is expected
    assert str(explained).startswith("ClickHouse at db.example:9440")
    assert text in str(explained)
    assert "\n" not in str(explained)


def test_a_port_that_speaks_http_is_explained() -> None:
    """The HTTP port of ClickHouse is easily mistaken for the native one; the error says so."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server, ThreadPoolExecutor(1) as thread:
        answered = thread.submit(server.handle_request)
        settings = ClickHouseSettings(port=server.server_port)
        with pytest.raises(HaltError, match="check CHIMERA_CLICKHOUSE__PORT"), explained(settings):
            connect(settings).execute("SELECT 1")
        answered.result(10)


def test_the_driver_computes_dates_when_it_needs_them() -> None:
    """Importing the client fills no table of all dates, and a date is right all the same."""
    program = (
        "import pipeline.clickhouse.client\n"
        "from clickhouse_driver.columns.datecolumn import _date_lut, _date_lut_reverse\n"
        "print(len(_date_lut), _date_lut[20_000], _date_lut_reverse[_date_lut[20_000]])"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CLICKHOUSE_DRIVER_")}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "0 2024-10-04 20000\n"
