"""A request in one version of Kafka's protocol, for what aiokafka's own requests don't ask or tell."""

from collections.abc import Mapping
from typing import Any

from aiokafka.errors import IncompatibleBrokerVersion


class ExactRequest:
    """A request in exactly one version; aiokafka's connections take it as one of its own.

    Args:
        struct: aiokafka's `RequestStruct` of that version, filled in.
    """

    def __init__(self, struct: Any) -> None:
        self._struct = struct

    @property
    def struct(self) -> Any:
        """The request's fields."""
        return self._struct

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> Any:
        """Return the request in the form for the connection.

        Args:
            versions: lowest and highest version that the broker knows, by API key.

        Raises:
            aiokafka.errors.IncompatibleBrokerVersion: the broker doesn't know the version.
        """
        key, version = self._struct.API_KEY, self._struct.API_VERSION
        lowest, highest = versions.get(key, (0, -1))
        if not lowest <= version <= highest:
            raise IncompatibleBrokerVersion(
                f"{type(self._struct).__name__}: expected a broker with version {version} of API {key}, "
                f"got {lowest} to {highest}"
            )
        return self._struct
