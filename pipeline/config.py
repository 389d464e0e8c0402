"""All settings: environment variables `CHIMERA_<SECTION>__<KEY>`, checked once, explained in one line when wrong."""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, Field, FilePath, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline.errors import ConfigError
from pipeline.tls import client_context
from pipeline.validation_messages import expected

ENV_PREFIX = "CHIMERA_"
ENV_DELIMITER = "__"
ENV_FORM = f"{ENV_PREFIX}<SECTION>{ENV_DELIMITER}<KEY>"

_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
_SERVER = re.compile(rf"{_HOST}:(?P<port>[0-9]{{1,5}})")
_HTTP_URL = re.compile(rf"https?://(?P<login>[^/@\s]+@)?{_HOST}(:[0-9]{{1,5}})?(/\S*)?")
_MAX_PORT = 65535
_HEARTBEATS = 3  # in a session: one that is lost must not cost the partitions


def _servers(text: str) -> str:
    servers = [server.strip() for server in text.split(",")]
    for server in servers:
        match = _SERVER.fullmatch(server)
        if not match or not 1 <= int(match["port"]) <= _MAX_PORT:
            raise ValueError("host:port, comma-separated")
    return ",".join(servers)


def _http_url(text: str) -> str:
    match = _HTTP_URL.fullmatch(text)
    if not match:
        raise ValueError("http://host:port or https://host:port")
    if match["login"]:  # addresses are logged
        raise ValueError("an address without a login; user and password are settings of their own")
    return text


Port = Annotated[int, Field(ge=1, le=_MAX_PORT)]
Seconds = Annotated[float, Field(ge=0.001, le=86_400, allow_inf_nan=False)]
Servers = Annotated[str, AfterValidator(_servers)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]


def _project_file(relative: str) -> Path:
    """A file of the project: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).parent
    in_checkout = package.parent / relative
    return in_checkout if in_checkout.exists() else package / "_data" / relative


class ContradictionError(ValueError):
    """Settings that are right one by one and not together: says which, in full."""


class _Section(BaseModel, extra="forbid", frozen=True):
    """One section of the settings."""


class KafkaSettings(_Section):
    """Address of the broker, TLS and login; `pipeline.kafka.client` turns them into a client's configuration."""

    bootstrap_servers: Servers = Field("127.0.0.1:9092", description="host:port, comma-separated")
    security_protocol: str = Field("PLAINTEXT", pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$")
    ca_cert: FilePath | None = Field(None, description="PEM file of the authority that signed the broker's certificate")
    client_cert: FilePath | None = Field(None, description="PEM file of our own certificate, where the broker asks")
    client_key: FilePath | None = Field(None, description="PEM file of its key")
    client_key_password: SecretStr = SecretStr("")
    sasl_mechanism: str = Field("SCRAM-SHA-512", pattern="^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512|OAUTHBEARER)$")
    user: str | None = Field(None, description="with OAUTHBEARER: the client's id")
    password: SecretStr = Field(SecretStr(""), description="with OAUTHBEARER: the client's secret")
    oauth_token_url: HttpUrl | None = Field(None, description="where OAUTHBEARER gets its tokens")
    oauth_scope: str | None = None
    group_id: str = Field("chimera", min_length=1, description="consumer group of the worker")
    session_timeout_seconds: Seconds = 45.0
    heartbeat_interval_seconds: Seconds = 3.0
    max_fetch_bytes: int = Field(1024 * 1024, ge=1024, description="most bytes of one partition in one fetch")

    @model_validator(mode="after")
    def _heartbeats_fit(self) -> Self:
        if self.heartbeat_interval_seconds * _HEARTBEATS > self.session_timeout_seconds:
            raise ContradictionError(
                f"{env_name('kafka', 'heartbeat_interval_seconds')}: expected at most a third of "
                f"{env_name('kafka', 'session_timeout_seconds')}, {self.session_timeout_seconds:g}, "
                f"got {self.heartbeat_interval_seconds:g}"
            )
        return self

    @model_validator(mode="after")
    def _security_is_whole(self) -> Self:
        """Half of it would be none: who sets a certificate or a login believes that it is used."""
        login = {"user": self.user, "password": self.password.get_secret_value()}
        token = {"oauth_token_url": self.oauth_token_url}
        key = {"client_cert": self.client_cert, "client_key": self.client_key}
        oauth = self.sasl and self.sasl_mechanism == "OAUTHBEARER"
        for wanted, values in ((self.sasl, login), (oauth, token), (self.tls and any(key.values()), key)):
            if missing := [name for name, value in values.items() if wanted and not value]:
                raise ContradictionError(f"{env_name('kafka', missing[0])}: expected a value, {self._as_secured}")
        for wanted, values in ((self.sasl, login), (oauth, token), (self.tls, {**key, "ca_cert": self.ca_cert})):
            if unused := [name for name, value in values.items() if value and not wanted]:
                raise ContradictionError(f"{env_name('kafka', unused[0])}: expected none, {self._as_secured}")
        try:
            if self.tls:
                client_context(self)
        except OSError as error:
            names = ", ".join(env_name("kafka", name) for name in ("ca_cert", "client_cert", "client_key"))
            raise ContradictionError(f"{names}: expected PEM files, a certificate and its own key: {error}") from None
        return self

    @property
    def _as_secured(self) -> str:
        names = ("security_protocol", "sasl_mechanism") if self.sasl else ("security_protocol",)
        return "as " + ", ".join(f"{env_name('kafka', name)} is {getattr(self, name)}" for name in names)

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.security_protocol.endswith("SSL")

    @property
    def sasl(self) -> bool:
        """Whether we log in."""
        return self.security_protocol.startswith("SASL")


class ClickHouseSettings(_Section):
    """Where ClickHouse is and how to log in. Port 9440 is its usual TLS port."""

    host: str = Field("127.0.0.1", min_length=1)
    port: Port | None = Field(None, description="native protocol; 9000, or 9440 when secure")
    user: str = "default"
    password: SecretStr = SecretStr("")
    database: str = Field("chimera_metrics", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    secure: bool = False
    verify: bool = Field(True, description="check the server's certificate when secure")
    ca_cert: FilePath | None = Field(None, description="PEM file of the authority that signed the server's certificate")
    connect_timeout_seconds: Seconds = 10.0
    query_timeout_seconds: Seconds = 300.0

    @property
    def native_port(self) -> int:
        """The port to connect to."""
        return self.port or (9440 if self.secure else 9000)

    @property
    def address(self) -> str:
        """`host:port`, for messages."""
        return f"{self.host}:{self.native_port}"


class RegistrySettings(_Section):
    """The schema registry, where there is one: Confluent-framed records need it."""

    url: HttpUrl | None = None
    user: str | None = None
    password: SecretStr = SecretStr("")
    timeout_seconds: Seconds = 10.0


class WorkerSettings(_Section):
    """How much the worker does at once."""

    batches_in_flight: int = Field(2, ge=1, le=64, description="micro-batches of one partition between cut and ack")
    insert_threads: int = Field(2, ge=1, le=64, description="threads that decode and insert, over all families")
    max_bytes_in_flight: int = Field(32 * 1024 * 1024, ge=1024, description="fetching pauses above this")
    commit_interval_seconds: Seconds = 1.0
    lease_seconds: Seconds = Field(5.0, description="an insert starts only so long after its range was recorded")
    drain_seconds: Seconds = Field(6.0, description="how long a stop or a rebalance waits for inserts under way")
    retry_backoff_seconds: Seconds = Field(0.2, description="first pause after a failed insert; doubles")
    retry_backoff_max_seconds: Seconds = 15.0
    reject_ratio: float = Field(0.5, ge=0, le=1, description="not ready while more of a family's records are rejected")
    reject_window_seconds: Seconds = Field(60.0, description="how far back that is counted")
    reject_minimum: int = Field(20, ge=1, description="with fewer records in the window nothing is concluded")
    allow_fresh_group: bool = Field(False, description="let a group without offsets store into tables that have rows")
    web_host: str = "127.0.0.1"
    web_port: Port = 6066

    @model_validator(mode="after")
    def _pauses_grow(self) -> Self:
        if self.retry_backoff_seconds > self.retry_backoff_max_seconds:
            raise ContradictionError(
                f"{env_name('worker', 'retry_backoff_seconds')}: expected at most "
                f"{env_name('worker', 'retry_backoff_max_seconds')}, {self.retry_backoff_max_seconds:g}, "
                f"got {self.retry_backoff_seconds:g}"
            )
        return self


class RollupSettings(_Section):
    """The stream job that derives session_stats from ui_events."""

    enabled: bool = True
    grace_seconds: Seconds = Field(600.0, description="how far an event may be behind the newest and still be counted")
    idle_seconds: Seconds = Field(300.0, description="a partition without records for so long is closed by the clock")
    snapshot_rows: int = Field(1_000_000, ge=1, description="events of a partition from one snapshot to the next")
    snapshot_seconds: Seconds = Field(60.0, description="or so long, whichever comes first")


class ValidationSettings(_Section):
    """How far the time of an event may be from the timestamp of its record."""

    max_ahead_seconds: float = Field(86_400.0, ge=0, le=1e10, description="how much later an event may be")
    max_behind_seconds: float | None = Field(None, ge=0, le=1e10, description="how much earlier; backfills are")


class TopicsSettings(_Section):
    """Where the topics are declared."""

    file: Path = Field(default_factory=lambda: _project_file("topics.yaml"))
    replication: int | None = Field(None, ge=1, description="replaces the replication factor of every topic")


class SchemasSettings(_Section):
    """Where the Avro schemas are."""

    directory: Path = Field(default_factory=lambda: _project_file("schemas/avro"))


class PrivacySettings(_Section):
    """What personal data is hashed with; the worker doesn't start without a key."""

    hash_key: SecretStr | None = Field(None, min_length=32, description="secret, as `openssl rand -hex 32` makes one")


class LogSettings(_Section):
    """How the log looks."""

    level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    format: str = Field("console", pattern="^(console|json)$")


class Settings(BaseSettings):
    """Every setting of the worker and the tools."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER, extra="forbid", frozen=True
    )

    kafka: KafkaSettings = KafkaSettings()
    clickhouse: ClickHouseSettings = ClickHouseSettings()
    registry: RegistrySettings = RegistrySettings()
    worker: WorkerSettings = WorkerSettings()
    rollup: RollupSettings = RollupSettings()
    validation: ValidationSettings = ValidationSettings()
    topics: TopicsSettings = TopicsSettings()
    schemas: SchemasSettings = SchemasSettings()
    privacy: PrivacySettings = PrivacySettings()
    log: LogSettings = LogSettings()


def env_name(section: str, key: str) -> str:
    """Name of the environment variable behind a setting."""
    return f"{ENV_PREFIX}{section}{ENV_DELIMITER}{key}".upper()


def env_names() -> tuple[str, ...]:
    """Names of all environment variables that are settings, by section."""
    return tuple(
        env_name(section, key)
        for section, field in Settings.model_fields.items()
        for key in getattr(field.annotation, "model_fields", {})
    )


def by_env_name(settings: Settings) -> dict[str, Any]:
    """Values of all settings by the names of their environment variables; secrets stay wrapped."""
    return {env_name(section, key): value for section, part in settings for key, value in part}


def names_in_environment() -> frozenset[str]:
    """Names of ours that the environment has, in upper case; not all need be settings."""
    return frozenset(name.upper() for name in os.environ if name.upper().startswith(ENV_PREFIX))


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        ConfigError: a variable is unknown or its value is not of the expected form; secrets are not repeated.
    """
    # A misspelt section would be passed over in silence: pydantic-settings looks up the names it knows.
    ours = {name for name in os.environ if name.upper().startswith(ENV_PREFIX)}
    unknown = sorted(name for name in ours if name.upper() not in env_names())
    if unknown:
        raise ConfigError("; ".join(map(_explain_unknown, unknown)))
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(_explain(problem) for problem in error.errors(include_input=False))
        raise ConfigError(problems) from None


def _explain_unknown(name: str) -> str:
    close = difflib.get_close_matches(name.upper(), env_names(), n=1, cutoff=0.85)
    return f"{name}: no such setting; {f'did you mean {close[0]}?' if close else f'expected {ENV_FORM}'}"


def _explain(problem: Mapping[str, Any]) -> str:
    if isinstance(contradiction := problem.get("ctx", {}).get("error"), ContradictionError):
        return str(contradiction)
    name = f"{ENV_PREFIX}{ENV_DELIMITER.join(str(part) for part in problem['loc']).upper()}"
    return f"{name}: {expected(problem)}"
