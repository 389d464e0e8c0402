"""Connections to ClickHouse, and the kind and explanation of their failures."""

import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from clickhouse_driver import Client
from clickhouse_driver import errors as driver_errors

from pipeline.clickhouse.codes import LOGIN_REFUSED, failure_kind, is_known, name_of
from pipeline.config import ClickHouseSettings, env_name
from pipeline.errors import ChimeraError, FailureKind, HaltError, UnavailableError, UnclearError
from pipeline.retry import pauses
from pipeline.tls import handshake_error

NO_ANSWER = "no_answer"
"""Label of a failure: the server is silent."""

_MOST_ATTEMPTS = 8
_PING_SECONDS = 5.0
# Seconds without a packet, seconds between questions, number of questions: a connection to a machine that is gone fails
# after 15 s. One to a process that is stopped doesn't: its machine answers.
_KEEPALIVE = (6, 3, 3)

LOOKUP_SETTINGS: Mapping[str, str | int] = {
    # Filters, limits and old results would make rows look missing; they would be inserted a second time.
    "additional_table_filters": "{}",
    "additional_result_filter": "",
    "filter": "",
    "limit": 0,
    "offset": 0,
    "use_query_cache": 0,
    "apply_deleted_mask": 1,
    "apply_patch_parts": 1,
    "ignore_cold_parts_seconds": 0,
    "enable_parallel_replicas": 0,
    "parallel_replicas_custom_key": "",
    "partial_result_on_first_cancel": 0,
    # A result that is cut short is a failure, not an answer.
    **{
        f"{what}_overflow_mode": "throw"
        for what in ("read", "result", "timeout", "set", "distinct", "group_by", "sort", "join", "transfer")
    },
    "read_overflow_mode_leaf": "throw",
    "timeout_overflow_mode_leaf": "throw",
    # The result depends on the query alone: its dialect, its time zone, no additional rows, no NULL.
    "dialect": "clickhouse",
    "session_timezone": "",
    "final": 0,
    "extremes": 0,
    "implicit_table_at_top_level": "",
    "implicit_transaction": 0,
    "aggregate_functions_null_for_empty": 0,
    "join_use_nulls": 0,
    "group_by_use_nulls": 0,
    "join_default_strictness": "ALL",
    "prefer_column_name_to_alias": 0,
    # Queries may read a table without using its key.
    "force_primary_key": 0,
    "force_index_by_date": 0,
    "force_optimize_projection": 0,
    # The answer comes over this connection, and the driver waits for the events of an insert.
    "run_query_in_background": 0,
    "send_profile_events": 1,
    # The driver reads and writes blocks in this form only.
    "low_cardinality_allow_in_native_format": 1,
    "input_format_native_decode_types_in_binary_format": 0,
    "output_format_native_encode_types_in_binary_format": 0,
}
"""Settings of every query, whatever the user's profile says; see `pipeline.clickhouse.pinned_settings`."""


def connect(
    settings: ClickHouseSettings, *, database: str | None = None, answer_seconds: float | None = None
) -> Client:
    """Return a client of the configured server; it connects on its first use, and sends `LOOKUP_SETTINGS`.

    Args:
        settings: address, login, TLS, timeouts.
        database: default database; it must exist on the first use. Defaults to the configured one.
        answer_seconds: longest wait for a connection or an answer, instead of the settings' timeouts.
    """
    return Client(
        settings.host,
        port=settings.native_port,
        user=settings.user,
        password=settings.password.get_secret_value(),
        database=settings.database if database is None else database,
        secure=settings.secure,
        verify=settings.verify,
        ca_certs=str(settings.ca_cert) if settings.ca_cert else None,
        connect_timeout=answer_seconds or settings.connect_timeout_seconds,
        send_receive_timeout=answer_seconds or settings.query_timeout_seconds,
        # Before each query the driver pings; without an answer it connects anew, which has the whole time again.
        sync_request_timeout=answer_seconds / 2 if answer_seconds else _PING_SECONDS,
        tcp_keepalive=_KEEPALIVE,
        client_name="chimera",
        compression="lz4" if settings.compressed else False,
        settings=dict(LOOKUP_SETTINGS),
    )


def execute_again(settings: ClickHouseSettings, statement: str) -> None:
    """Execute a statement that cleans up, until the server has done it; give up after about ten seconds.

    Each attempt has a connection of its own: an earlier one may have been interrupted within a query.

    Raises:
        UnavailableError, HaltError: the server isn't available or refuses; the message names the statement.
    """
    for attempt, pause in enumerate(pauses(0.2, 2), start=1):
        try:
            with explained(settings), connect(settings) as client:
                client.execute(statement)
                return
        except (UnavailableError, HaltError) as error:
            if isinstance(error, HaltError) or attempt == _MOST_ATTEMPTS:
                raise type(error)(f"{error}; expected to be able to: {statement}") from error
            time.sleep(pause)


def kind_of(error: BaseException) -> FailureKind | None:
    """Kind of a failure, decided by its type or its code; None for an unforeseen one."""
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


def is_unclear(error: BaseException) -> bool:
    """True if a failure may pass or may need a person: it is tried again for a while, and halts then."""
    if isinstance(error, driver_errors.ServerException):
        return not is_known(int(error.code))
    return isinstance(error, UnclearError)


@contextmanager
def explained(settings: ClickHouseSettings) -> Iterator[None]:
    """Turn a failure of the driver into one that names the server and says what to do.

    Raises:
        UnavailableError: the server doesn't answer or is overloaded; another attempt may succeed.
        HaltError: the server refuses; another attempt would fail too.
        UnclearError: another attempt may succeed or not.
    """
    try:
        yield
    except (driver_errors.Error, OSError, EOFError) as error:
        raise explain(error, settings) from error


def explain(error: BaseException, settings: ClickHouseSettings) -> ChimeraError:
    """Return an error that names the server, the failure and what to do."""
    where = f"ClickHouse at {settings.address}"
    if kind_of(error) is FailureKind.RETRY:
        if settings.secure and (reason := _tls_refusal(settings)):
            names = ", ".join(env_name("clickhouse", key) for key in ("secure", "ca_cert", "verify"))
            return HaltError(f"{where}: no TLS connection: {describe(reason)}; check {names}")
        closed = isinstance(error, EOFError) and not settings.secure
        hint = f"; if the server expects TLS, set {env_name('clickhouse', 'secure')}" if closed else ""
        return UnavailableError(f"{where} is not available: {describe(error)}{hint}")
    if isinstance(error, driver_errors.ServerException) and error.code in LOGIN_REFUSED:
        names = f"{env_name('clickhouse', 'user')} and {env_name('clickhouse', 'password')}"
        return HaltError(f"{where} refuses user {settings.user!r} or the password; check {names}")
    foreign = isinstance(
        error, (driver_errors.UnexpectedPacketFromServerError, driver_errors.UnknownPacketFromServerError)
    )
    hint = (
        f"; expected the native protocol on this port, not HTTP: check {env_name('clickhouse', 'port')}"
        if foreign
        else ""
    )
    return (UnclearError if is_unclear(error) else HaltError)(f"{where}: {describe(error)}{hint}")


def _tls_refusal(settings: ClickHouseSettings) -> ssl.SSLError | None:
    """Reason why the TLS handshake fails; None if it succeeds or the server doesn't answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # configured as the driver does it
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


def cause_of(error: BaseException, settings: ClickHouseSettings) -> str:
    """Return the reason of a failed step on one line, with the server that is to blame."""
    if isinstance(error, ChimeraError):
        return str(error)
    where = f"ClickHouse {settings.address}"
    return f"{where} doesn't answer" if _is_silence(error) else f"{where}: {describe(error)}"


def label_of(error: BaseException) -> str:
    """Return the cause of a failure as a word: the name of the server's error, or what happened to the connection."""
    match error:
        case driver_errors.ServerException(code=int(code)):
            return name_of(code).lower() or "unlisted_code"
        case ChimeraError():
            return "unavailable"
        case _ if _is_silence(error):
            return NO_ANSWER
        case driver_errors.Error() | OSError() | EOFError():
            return "connection"
    return "unexpected"


def _is_silence(error: BaseException) -> bool:
    return isinstance(error, driver_errors.SocketTimeoutError | TimeoutError)


def describe(error: BaseException) -> str:
    """Message of a failure on one line, without the server's stack trace."""
    message = getattr(error, "message", None) or str(error) or type(error).__name__
    line = str(message).partition("Stack trace:")[0]
    return " ".join(line.split()).removeprefix("DB::Exception: ")
