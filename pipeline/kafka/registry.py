"""The schema registry: schemas by id, and ids of schemas."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from cachetools import TTLCache

from pipeline.config import RegistrySettings, env_name
from pipeline.errors import ConfigError, HaltError, UnavailableError, UnclearError
from pipeline.schema.versions import Schema
from pipeline.schema.writer_schema import UnresolvableError, parse_schema
from pipeline.tls import certificate_error, system_authorities

_UNAUTHORIZED = {401, 403}
_NOT_NOW = {408, 429}
_SERVER_ERROR = 500
# The registry's own error codes. HTTP's 404 also stands for a mistyped path.
_SUBJECT_NOT_FOUND, _SCHEMA_NOT_FOUND = 40401, 40403
# Records may name any id. An unknown id is remembered for a while, so that not every record asks the registry.
_UNKNOWN_SECONDS = 30
_MOST_UNKNOWN = 100_000

# Confluent's client is imported where it is used: it takes a fifth of a worker's start, and few workers need it.
if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema as RegistrySchema

T = TypeVar("T")


_OTHER_TYPES = {"JSON", "PROTOBUF"}
_TRUST = "expected a certificate of an authority that this system trusts: add the authority to its store"


class UnknownSchemaError(LookupError):
    """The registry has no Avro schema with this id."""


def registry_of(settings: RegistrySettings) -> "SchemaRegistry | None":
    """Return a client of the registry; None if no URL is set. Raises: as the client."""
    return SchemaRegistry(settings) if settings.url else None


class SchemaRegistry:
    """A client of a registry with Confluent's interface. Use it from any number of threads.

    It remembers a schema for good, and an unknown id for half a minute.

    Args:
        settings: address and login of the registry.

    Raises:
        ConfigError: no URL is set.
    """

    def __init__(self, settings: RegistrySettings) -> None:
        from confluent_kafka.schema_registry import SchemaRegistryClient  # noqa: PLC0415 (as above)

        self._settings = settings
        if settings.url is None:
            raise ConfigError(f"{env_name('registry', 'url')}: expected the URL of the schema registry")
        options: dict[str, Any] = {"url": settings.url, "timeout": settings.timeout_seconds, "max.retries": 0}
        if authorities := system_authorities():
            options["ssl.ca.location"] = authorities
        if settings.user is not None:
            options["basic.auth.user.info"] = f"{settings.user}:{settings.password.get_secret_value()}"
        self._client = SchemaRegistryClient(options)
        self._unknown: TTLCache[int, str] = TTLCache(_MOST_UNKNOWN, _UNKNOWN_SECONDS)
        self._lock = Lock()  # guards _unknown

    def schema(self, schema_id: int) -> Any:
        """Return the Avro schema with this id, as parsed JSON.

        Raises:
            UnknownSchemaError: the registry has no such schema.
            UnresolvableError: the schema is invalid, too large to be read, or has references.
            UnavailableError: the registry doesn't answer; another try may help.
            HaltError: the registry refuses us.
            UnclearError: the answer isn't that of a registry.
        """
        with self._lock:
            problem = self._unknown.get(schema_id)
        found = None if problem else self._find(schema_id)
        if found is None or found.schema_type != "AVRO":
            instead = "" if found is None else f", but one of {_kind(found)}"
            problem = problem or f"the registry at {self._settings.url} has no Avro schema {schema_id}{instead}"
            with self._lock:
                self._unknown.setdefault(schema_id, problem)
            raise UnknownSchemaError(problem)
        if found.references:
            raise UnresolvableError(
                "a registered schema with references, which aren't supported; register one that defines all its types"
            )
        return parse_schema(found.schema_str or "")

    def _find(self, schema_id: int) -> "RegistrySchema | None":
        from confluent_kafka.schema_registry.error import SchemaRegistryError  # noqa: PLC0415 (as above)

        with self._explained():
            try:
                found = self._client.get_schema(schema_id)
            except SchemaRegistryError as error:
                if error.error_code == _SCHEMA_NOT_FOUND:
                    return None
                raise
            if not isinstance(found.schema_str, str):  # the client takes any JSON there
                raise TypeError("schema_str")
            return found

    def schema_id(self, topic: str, schema: Schema) -> int:
        """Return the id of a schema under the subject `<topic>-value`; register the schema first if it is new.

        Raises:
            UnavailableError: the registry doesn't answer; another try may help.
            HaltError: the registry refuses us, or the schema.
        """
        from confluent_kafka.schema_registry import Schema as RegistrySchema  # noqa: PLC0415 (as above)
        from confluent_kafka.schema_registry.error import SchemaRegistryError  # noqa: PLC0415

        subject, wanted = f"{topic}-value", RegistrySchema(orjson.dumps(schema.raw).decode(), "AVRO")
        with self._explained(f"{schema.file.name} as {subject}: "):
            try:
                known = _given(self._client.lookup_schema(subject, wanted), "schema_id").schema_id
                return int(known or 0)
            except SchemaRegistryError as error:
                if error.error_code not in {_SUBJECT_NOT_FOUND, _SCHEMA_NOT_FOUND}:
                    raise
            return int(self._client.register_schema(subject, wanted))

    @contextmanager
    def _explained(self, what: str = "") -> Iterator[None]:
        # Either of two packages, as the client chooses.
        from confluent_kafka.schema_registry.common._httpx_compat import httpx  # noqa: PLC0415 (as above)
        from confluent_kafka.schema_registry.error import SchemaRegistryError  # noqa: PLC0415

        where = f"schema registry at {self._settings.url}"
        try:
            yield
        except httpx.HTTPError as error:
            if refusal := certificate_error(error):
                raise HaltError(f"{where}: no TLS connection: {refusal.verify_message}; {_TRUST}") from error
            raise UnavailableError(f"{where} is not available: {str(error) or type(error).__name__}") from error
        except SchemaRegistryError as error:
            status = error.http_status_code
            if status in _UNAUTHORIZED:
                names = f"{env_name('registry', 'user')} and {env_name('registry', 'password')}"
                raise HaltError(f"{where} refuses the login; check {names}") from error
            if status in _NOT_NOW or status >= _SERVER_ERROR:
                raise UnavailableError(f"{where} is not available: HTTP {status}") from error
            said = " ".join(str(error.error_message).split())
            raise HaltError(f"{where}: {what}{said} (HTTP {status})") from error
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            # The client parses any answer, such as a proxy's page, half of an answer, or JSON that nests without end.
            name = env_name("registry", "url")
            raise UnclearError(f"{where}: {what}the answer is not that of a schema registry; check {name}") from error


def _given(answer: T, name: str) -> T:
    """Return an answer of the client that has this attribute; it is None if the registry's answer lacked it."""
    if getattr(answer, name) is None:
        raise LookupError(name)
    return answer


def _kind(schema: "RegistrySchema") -> str:
    return f"type {schema.schema_type}" if schema.schema_type in _OTHER_TYPES else "another type"
