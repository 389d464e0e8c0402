"""ClickHouse: connections, inserts, and what their failures mean. Only this and migrate.py use its driver."""

import queue
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from clickhouse_driver import Client
from clickhouse_driver import errors as driver_errors
from clickhouse_driver.block import BlockInfo, ColumnOrientedBlock
from clickhouse_driver.protocol import ClientPacketTypes
from clickhouse_driver.varint import write_varint
from clickhouse_driver.writer import write_binary_str

from pipeline.columns import Column
from pipeline.config import ClickHouseSettings, env_name
from pipeline.errors import ChimeraError, FailureKind, HaltError, UnavailableError, failure_kind
from pipeline.native import write_block

# What a deduplication token depends on: the block as it was sent, inserted before the server answers.
_INSERT_SETTINGS = {"async_insert": 0, "insert_deduplicate": 1}


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
    """What follows from a failed statement; None when the failure isn't ClickHouse's.

    A certificate that doesn't hold is no network trouble: another try would meet the same one.
    """
    match error:
        case driver_errors.ServerException(code=int(code)):
            return failure_kind(code)
        case ssl.SSLCertVerificationError():
            return FailureKind.HALT
        case driver_errors.NetworkError() | driver_errors.SocketTimeoutError() | EOFError() | OSError():
            return FailureKind.HALT if _certificate_refused(error) else FailureKind.RETRY
        case driver_errors.Error():
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
        return UnavailableError(f"{where} is not available: {describe(error)}")
    if isinstance(error, driver_errors.ServerException) and error.code in {192, 193, 194, 516}:
        names = f"{env_name('clickhouse', 'user')} and {env_name('clickhouse', 'password')}"
        return HaltError(f"{where} refuses user {settings.user!r} or the password; check {names}")
    if _certificate_refused(error):
        setting = env_name("clickhouse", "ca_cert")
        return HaltError(f"{where}: can't verify the server's certificate; check {setting}: {describe(error)}")
    return HaltError(f"{where}: {describe(error)}")


def _certificate_refused(error: BaseException | None) -> bool:
    """The driver wraps the reason of a failed connection; it is the context of what it raises."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def describe(error: BaseException) -> str:
    """A failure of the driver on one line, without the server's stack trace."""
    message = getattr(error, "message", None) or str(error) or type(error).__name__
    line = str(message).partition("Stack trace:")[0]
    return " ".join(line.split()).removeprefix("DB::Exception: ")


class _BlockClient(Client):
    """A client whose INSERT takes blocks of columns, and writes them straight from their arrays."""

    def send_data(
        self,
        sample_block: Any,
        data: Sequence[Mapping[str, Column]],
        types_check: bool = False,
        columnar: bool = False,
    ) -> int:
        """Send blocks of columns; overrides the driver's, which wants an object a value."""
        del types_check, columnar
        connection = self.connection
        for columns in data:
            write_varint(ClientPacketTypes.DATA, connection.fout)
            write_binary_str("", connection.fout)
            BlockInfo().write(connection.block_out.fout)
            write_block(connection.block_out.fout, sample_block.columns_with_types, columns)
            connection.block_out.finalize()
            self.receive_profile_events()
        connection.send_data(ColumnOrientedBlock())  # an empty block ends the data
        self.receive_profile_events()
        return sum(len(next(iter(columns.values()))) for columns in data)


class Sink:
    """Inserts micro-batches; may be used from several threads at once, each on a connection of its own.

    Args:
        settings: where the tables are.
    """

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings
        self._idle: queue.SimpleQueue[Client] = queue.SimpleQueue()

    def insert(self, table: str, columns: Mapping[str, Column], token: str) -> None:
        """Insert rows as one block; returns when the server has stored them.

        Args:
            table: in the configured database.
            columns: by name, all of one length, at least one row.
            token: a repeated insert with the same token is stored once.

        Raises:
            clickhouse_driver.errors.Error, OSError, EOFError: `kind_of` says what follows. Whether the rows are stored
                is then unknown, unless the server said no; the same insert may be made again.
        """
        client = self._client()
        names = ", ".join(f"`{name}`" for name in columns)
        settings = {**_INSERT_SETTINGS, "insert_deduplication_token": token}
        client.execute(f"INSERT INTO `{table}` ({names}) VALUES", [columns], settings=settings)
        self._idle.put(client)

    def close(self) -> None:
        """Disconnect."""
        while not self._idle.empty():
            self._idle.get().disconnect()

    def _client(self) -> Client:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            settings = self._settings
            return _BlockClient(settings.host, database=settings.database, **client_arguments(settings))
