"""How ClickHouse is reached, and what its failures mean: one place for connection arguments and error codes."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clickhouse_driver import Client
from clickhouse_driver import errors as driver_errors

from pipeline.config import ClickHouseSettings, env_name
from pipeline.errors import ChimeraError, FailureKind, HaltError, UnavailableError, failure_kind
from pipeline.tls import handshake_error


def connect(settings: ClickHouseSettings, *, database: str | None = None) -> Client:
    """A client of the configured server; it connects when it is first used.

    Args:
        settings: address, credentials, TLS.
        database: in place of the configured one; it must exist when the client is used.
    """
    return Client(
        settings.host,
        database=settings.database if database is None else database,
        **client_arguments(settings),
    )


def client_arguments(settings: ClickHouseSettings) -> dict[str, Any]:
    """How to reach the configured server and log in, as clickhouse-driver spells it; without host and database."""
    return {
        "port": settings.native_port,
        "user": settings.user,
        "password": settings.password.get_secret_value(),
        "secure": settings.secure,
        "verify": settings.verify,
        "ca_certs": str(settings.ca_cert) if settings.ca_cert else None,
        "connect_timeout": settings.connect_timeout_seconds,
        "send_receive_timeout": settings.query_timeout_seconds,
        "client_name": "chimera",
    }


def kind_of(error: BaseException) -> FailureKind | None:
    """What follows from a failed step; None when nobody has foreseen the failure."""
    match error:
        case driver_errors.ServerException(code=int(code)):
            return failure_kind(code)
        case UnavailableError():
            return FailureKind.RETRY
        case driver_errors.NetworkError() | driver_errors.SocketTimeoutError() | EOFError() | OSError():
            return FailureKind.RETRY
        case ChimeraError() | driver_errors.Error():
            return FailureKind.HALT
    return None


@contextmanager
def explained(settings: ClickHouseSettings) -> Iterator[None]:
    """Turn a failure of the driver into one that says which server, and what to do about it.

    Raises:
        UnavailableError: the server doesn't answer, or is overloaded; worth another try.
        HaltError: it refuses, and would again.
    """
    try:
        yield
    except (driver_errors.Error, OSError, EOFError) as error:
        raise explain(error, settings) from error


def explain(error: BaseException, settings: ClickHouseSettings) -> ChimeraError:
    """Say which server failed, how, and what to do about it."""
    where = f"ClickHouse at {settings.address}"
    if kind_of(error) is FailureKind.RETRY:
        if settings.secure and (reason := _tls_refusal(settings)):
            names = ", ".join(env_name("clickhouse", key) for key in ("secure", "ca_cert", "verify"))
            return HaltError(f"{where}: no TLS connection: {describe(reason)}; check {names}")
        closed = isinstance(error, EOFError) and not settings.secure
        hint = f"; where it expects TLS, set {env_name('clickhouse', 'secure')}" if closed else ""
        return UnavailableError(f"{where} is not available: {describe(error)}{hint}")
    if isinstance(error, driver_errors.ServerException) and error.code in {192, 193, 194, 516}:
        names = f"{env_name('clickhouse', 'user')} and {env_name('clickhouse', 'password')}"
        return HaltError(f"{where} refuses user {settings.user!r} or the password; check {names}")
    foreign = isinstance(
        error, (driver_errors.UnexpectedPacketFromServerError, driver_errors.UnknownPacketFromServerError)
    )
    hint = f"; expected the native protocol there, not HTTP: check {env_name('clickhouse', 'port')}" if foreign else ""
    return HaltError(f"{where}: {describe(error)}{hint}")


def _tls_refusal(settings: ClickHouseSettings) -> ssl.SSLError | None:
    """Why the server's certificate isn't taken, when that is what is wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # from here as the driver does it
    context.check_hostname = settings.verify
    context.verify_mode = ssl.CERT_REQUIRED if settings.verify else ssl.CERT_NONE
    try:
        if settings.ca_cert:
            context.load_verify_locations(settings.ca_cert)
        else:
            context.load_default_certs()
    except ssl.SSLError as error:
        return error
    return handshake_error(context, settings.host, settings.native_port, settings.connect_timeout_seconds)


def describe(error: BaseException) -> str:
    """A failure of the driver on one line, without the server's stack trace."""
    message = getattr(error, "message", None) or str(error) or type(error).__name__
    line = str(message).partition("Stack trace:")[0]
    return " ".join(line.split()).removeprefix("DB::Exception: ")
