"""Connection to a broker that is lost, and opened again, when its transport is closed.

uvloop raises RuntimeError when a closed transport is written to. aiokafka expects an OSError there. The RuntimeError
would end its fetches, heartbeats or metadata updates for good: the worker would stay a member of its group, and read
nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError


async def create_conn(host: str, port: int, **options: Any) -> "BrokerConnection":
    """Connect to a broker; replaces aiokafka's function of this name.

    Args:
        host: name or address.
        port: number of the port.
        options: as aiokafka's connection takes them.

    Raises:
        aiokafka.errors.KafkaError, OSError, TimeoutError: the broker can't be reached, or refused the connection.
    """
    connection = BrokerConnection(host, port, **options)
    await connection.connect()
    return connection


class BrokerConnection(AIOKafkaConnection):
    """aiokafka's connection, with the error that aiokafka expects."""

    def send(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request.

        Raises:
            aiokafka.errors.KafkaConnectionError: the connection is lost.
        """
        with self._lost_if_closed():
            return super().send(*args, **kwargs)

    def _send_sasl_token(self, *args: Any, **kwargs: Any) -> Any:
        with self._lost_if_closed():
            return super()._send_sasl_token(*args, **kwargs)

    @contextmanager
    def _lost_if_closed(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} closed: {error}") from error
