"""The schema registry: which schema an id stands for, and which id a schema has."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import orjson
from cachetools import TTLCache
from confluent_kafka.schema_registry import Schema as RegistrySchema
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.common._httpx_compat import httpx  # whichever of two packages the client uses
from confluent_kafka.schema_registry.error import SchemaRegistryError

from pipeline.config import RegistrySettings, env_name
from pipeline.errors import ConfigError, HaltError, UnavailableError
from pipeline.schema.versions import Schema
from pipeline.schema.writer_schema import parse_schema

_UNAUTHORIZED = {401, 403}
_NOT_NOW = {408, 429}
_SERVER_ERROR = 500
# The registry's own codes, of which HTTP knows nothing: a mistyped path is "not found" as well.
_SUBJECT_NOT_FOUND, _SCHEMA_NOT_FOUND = 40401, 40403
# Records may name any id: one that is unknown is asked for again, but not with each of them.
_UNKNOWN_SECONDS = 30
_MOST_UNKNOWN = 100_000


class UnknownSchemaError(LookupError):
    """The registry has no Avro schema with that id."""


class SchemaRegistry:
    """A client of a registry with Confluent's interface; what it has answered once it doesn't ask again.

    That an id is unknown it believes for half a minute. Of use from several threads.

    Args:
        settings: where the registry is, and how to log in.

    Raises:
        ConfigError: no URL is set.
    """

    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings
        if settings.url is None:
            raise ConfigError(f"{env_name('registry', 'url')}: expected the URL of the schema registry")
        options: dict[str, Any] = {"url": settings.url, "timeout": settings.timeout_seconds, "max.retries": 0}
        if settings.user is not None:
            options["basic.auth.user.info"] = f"{settings.user}:{settings.password.get_secret_value()}"
        self._client = SchemaRegistryClient(options)
        self._unknown: TTLCache[int, None] = TTLCache(_MOST_UNKNOWN, _UNKNOWN_SECONDS)
        self._lock = Lock()  # of what is unknown

    def schema(self, schema_id: int) -> Any:
        """The Avro schema with that id, as parsed JSON.

        Raises:
            UnknownSchemaError: the registry has none.
            UnresolvableError: what it has is no schema, or too large to be read.
            UnavailableError: it doesn't answer; worth another try.
            HaltError: it refuses us.
        """
        with self._lock:
            known = schema_id not in self._unknown
        found = self._find(schema_id) if known else None
        if found is None or found.schema_type != "AVRO":
            with self._lock:
                self._unknown.setdefault(schema_id, None)
            raise UnknownSchemaError(f"schema {schema_id} at {self._settings.url}: there is none for Avro")
        return parse_schema(found.schema_str or "")

    def _find(self, schema_id: int) -> RegistrySchema | None:
        with self._explained():
            try:
                return self._client.get_schema(schema_id)
            except SchemaRegistryError as error:
                if error.error_code == _SCHEMA_NOT_FOUND:
                    return None
                raise

    def schema_id(self, topic: str, schema: Schema) -> int:
        """The id of a schema under the subject `<topic>-value`, where it is registered when it isn't yet.

        Raises:
            UnavailableError: the registry doesn't answer; worth another try.
            HaltError: it refuses us, or the schema.
        """
        subject, wanted = f"{topic}-value", RegistrySchema(orjson.dumps(schema.raw).decode(), "AVRO")
        with self._explained(f"{schema.file.name} as {subject}: "):
            try:
                known = self._client.lookup_schema(subject, wanted).schema_id
            except SchemaRegistryError as error:
                if error.error_code not in {_SUBJECT_NOT_FOUND, _SCHEMA_NOT_FOUND}:
                    raise
                known = None
            return self._client.register_schema(subject, wanted) if known is None else known

    @contextmanager
    def _explained(self, what: str = "") -> Iterator[None]:
        where = f"schema registry at {self._settings.url}"
        try:
            yield
        except httpx.HTTPError as error:
            raise UnavailableError(f"{where} is not available: {str(error) or type(error).__name__}") from error
        except SchemaRegistryError as error:
            status = error.http_status_code
            if status in _UNAUTHORIZED:
                names = f"{env_name('registry', 'user')} and {env_name('registry', 'password')}"
                raise HaltError(f"{where} refuses the login; check {names}") from error
            if status in _NOT_NOW or status >= _SERVER_ERROR:
                raise UnavailableError(f"{where} is not available: HTTP {status}") from error
            raise HaltError(f"{where}: {what}{error.error_message} (HTTP {status})") from error
