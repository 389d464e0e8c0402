"""Settings: environment variables or files `CHIMERA_<SECTION>__<KEY>`, checked once; one line explains a wrong one.

`tool_settings.py` has those of the tools beside the data path; no other module declares any. docs/configuration.md
describes them for users.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from pipeline.errors import ConfigError, validation_message
from pipeline.forms import (
    SECRETS_DIR,
    File,
    Host,
    HttpUrl,
    PathText,
    Port,
    Seconds,
    Secret,
    Servers,
    SettingsSection,
    SourcedSettings,
    Text,
    is_loopback,
    secrets_folder,
    set_names,
)
from pipeline.tls import client_context
from pipeline.tool_settings import BackupSettings, MonitorSettings

ENV_PREFIX = "CHIMERA_"
ENV_DELIMITER = "__"
ENV_FORM = f"{ENV_PREFIX}<SECTION>{ENV_DELIMITER}<KEY>"

_MAX_GROUP_ID = 249
_INT32 = 2**31 - 1  # Kafka's sizes and counts
_HEARTBEATS = 3  # in a session: a lost heartbeat must not cost the partitions


def project_file(relative: str) -> Path:
    """Path of a project file: beside the package in a checkout, inside the package in an installed wheel."""
    package = Path(__file__).parent
    in_checkout = package.parent / relative
    return in_checkout if in_checkout.exists() else package / "_data" / relative


class ContradictionError(ValueError):
    """Two settings contradict each other, though each is valid alone; the message is complete."""


class KafkaSettings(SettingsSection):
    """Address of the broker, TLS and login; `pipeline.kafka.client` makes the client configuration from them."""

    bootstrap_servers: Servers = Field("127.0.0.1:9092", description="host:port, comma-separated")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ca_cert: File | None = Field(None, description="PEM file of the authority that signed the broker's certificate")
    client_cert: File | None = Field(None, description="PEM file of the client certificate")
    client_key: File | None = Field(None, description="PEM file of the client certificate's key")
    client_key_password: Secret = SecretStr("")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = "SCRAM-SHA-512"
    user: Text | None = Field(None, description="user, or client id with OAUTHBEARER")
    password: Secret = Field(SecretStr(""), description="password, or client secret with OAUTHBEARER")
    oauth_token_url: HttpUrl | None = Field(None, description="token endpoint for OAUTHBEARER")
    oauth_scope: Text | None = None
    group_id: Text = Field(
        "chimera", min_length=1, max_length=_MAX_GROUP_ID, description="consumer group of all workers"
    )
    instance_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]*[A-Za-z0-9_-][A-Za-z0-9._-]*$",
        max_length=_MAX_GROUP_ID,
        description="name of this worker in its group, for static membership; each worker has another",
    )
    session_timeout_seconds: Seconds = 45.0
    heartbeat_interval_seconds: Seconds = 3.0
    max_fetch_bytes: int = Field(1024 * 1024, ge=1024, le=_INT32, description="most bytes of a partition in a fetch")
    max_unpacked_bytes: int = Field(
        128 * 1024 * 1024, ge=1024 * 1024, le=_INT32, description="most bytes of a batch's records, decompressed"
    )

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
        """Refuse settings for TLS or login that are incomplete or unused: the user relies on them."""
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
        except (OSError, ValueError) as error:  # ValueError: a password too long for OpenSSL
            names = ", ".join(env_name("kafka", name) for name in ("ca_cert", "client_cert", "client_key"))
            raise ContradictionError(f"{names}: expected PEM files, a certificate and its own key: {error}") from None
        return self

    @property
    def _as_secured(self) -> str:
        names = ("security_protocol", "sasl_mechanism") if self.sasl else ("security_protocol",)
        return "as " + ", ".join(f"{env_name('kafka', name)} is {getattr(self, name)}" for name in names)

    @property
    def tls(self) -> bool:
        """True if the connection is encrypted."""
        return self.security_protocol.endswith("SSL")

    @property
    def sasl(self) -> bool:
        """True if the client logs in."""
        return self.security_protocol.startswith("SASL")


class ClickHouseSettings(SettingsSection):
    """Address of ClickHouse, TLS and login."""

    host: Host = "127.0.0.1"
    port: Port | None = Field(None, description="port of the native protocol; defaults to 9000, or to 9440 when secure")
    user: Text = "default"
    password: Secret = SecretStr("")
    database: str = Field("chimera_metrics", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    secure: bool = False
    verify: bool = Field(True, description="check the server's certificate and name when secure")
    ca_cert: File | None = Field(None, description="PEM file of the authority that signed the server's certificate")
    migrations: PathText | None = Field(None, description="folder of migrations of one's own")
    engine_prefix: Literal["", "Replicated", "Shared"] = Field(
        "", description="prefix of the engines of tables that migrations create"
    )
    cluster: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_.-]+$", description="cluster on which migrations run their statements"
    )
    connect_timeout_seconds: Seconds = 10.0
    query_timeout_seconds: Seconds = 300.0
    compression: Literal["auto", "lz4", "none"] = Field(
        "auto", description="of blocks on the network; `auto` is LZ4 for another machine"
    )
    storage_policy: str = Field(
        "tiered",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="policy with the volumes warm and cold, if there is one",
    )

    @property
    def compressed(self) -> bool:
        """True if blocks are compressed with LZ4 on the network."""
        return self.compression == "lz4" or (self.compression == "auto" and not is_loopback(self.host))

    @property
    def native_port(self) -> int:
        """Port of the native protocol."""
        return self.port or (9440 if self.secure else 9000)

    @property
    def address(self) -> str:
        """Host and port as `host:port`, for messages."""
        return f"{self.host}:{self.native_port}"


class RegistrySettings(SettingsSection):
    """Address of the schema registry and login; only Confluent-framed records need a registry."""

    url: HttpUrl | None = None
    user: Text | None = None
    password: Secret = SecretStr("")
    timeout_seconds: Seconds = 10.0


class WorkerSettings(SettingsSection):
    """Concurrency, retries and checks of the worker, and its web server."""

    batches_in_flight: int = Field(2, ge=1, le=64, description="unacknowledged micro-batches of one partition")
    insert_threads: int = Field(2, ge=1, le=64, description="threads that decode and insert, shared by all families")
    compiled_core: bool = Field(True, description="decode with the compiled core; without it, with numpy alone")
    max_bytes_in_flight: int = Field(
        40 * 1024 * 1024, ge=1024, le=2**40, description="bytes of fetched records in memory; above, fetching pauses"
    )
    commit_interval_seconds: Seconds = 1.0
    lease_seconds: Seconds = Field(5.0, description="longest time from a range's commit to its insert")
    drain_seconds: Seconds = Field(6.0, description="longest time that a stop or a rebalance waits for inserts")
    retry_backoff_seconds: Seconds = Field(0.2, description="first pause after a failed insert; doubles")
    retry_backoff_max_seconds: Seconds = Field(15.0, description="longest pause after a failed insert")
    reject_ratio: float = Field(0.5, ge=0, le=1, description="not ready above this share of rejected records")
    reject_window_seconds: Seconds = Field(60.0, description="time over which the share is counted")
    reject_minimum: int = Field(20, ge=1, le=_INT32, description="with fewer records in that time, always ready")
    halt_seconds: float = Field(
        10.0, ge=0, le=600, allow_inf_nan=False, description="time for which a halted worker says why at /ready"
    )
    allow_fresh_group: bool = Field(False, description="let a group without offsets fill tables that have rows")
    web_host: Host = "127.0.0.1"
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


class RollupSettings(SettingsSection):
    """The rollup, which derives session_stats from ui_events."""

    enabled: bool = True
    grace_seconds: Seconds = Field(
        600.0, description="an event that is older than the newest one by more than this is late"
    )
    idle_seconds: Seconds = Field(300.0, description="time without records after which the clock closes windows")
    snapshot_rows: int = Field(
        1_000_000, ge=1, le=_INT32, description="number of events of a partition between two snapshots"
    )
    snapshot_seconds: Seconds = Field(
        60.0, description="time between two snapshots, if it is over before that number is reached"
    )


class ValidationSettings(SettingsSection):
    """Largest differences between the time of an event and the timestamp of its record."""

    max_ahead_seconds: float = Field(
        86_400.0, ge=0, le=1e10, description="longest time by which an event may be after its record's timestamp"
    )
    max_behind_seconds: float | None = Field(
        None, ge=0, le=1e10, description="longest time by which an event may be before its record's timestamp"
    )


class TopicsSettings(SettingsSection):
    """File that declares the topics, and their replication."""

    file: PathText = Field(default_factory=lambda: project_file("topics.yaml"))
    own_file: PathText | None = Field(None, description="file that declares topics of one's own, beside the others")
    replication: int | None = Field(
        None, ge=1, le=32_767, description="replication factor of every topic, instead of the one in topics.yaml"
    )


class SchemasSettings(SettingsSection):
    """Directory of the Avro schemas."""

    directory: PathText = Field(default_factory=lambda: project_file("schemas/avro"))
    own_directory: PathText | None = Field(None, description="directory of schemas of one's own, beside the others")


class PrivacySettings(SettingsSection):
    """Key for hashing personal data; the worker doesn't start without it."""

    hash_key: Secret | None = Field(
        None, min_length=32, description="secret of at least 32 characters, for example from `openssl rand -hex 32`"
    )


class LogSettings(SettingsSection):
    """Level and format of the log."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["console", "json"] = "console"


class Settings(SourcedSettings):
    """All settings of the worker and the commands."""

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
    monitor: MonitorSettings = MonitorSettings()
    backup: BackupSettings = BackupSettings()
    log: LogSettings = LogSettings()


def env_name(section: str, key: str) -> str:
    """Name of a setting's environment variable."""
    return f"{ENV_PREFIX}{section}{ENV_DELIMITER}{key}".upper()


def env_names() -> tuple[str, ...]:
    """Names of the environment variables of all settings, by section."""
    return tuple(
        env_name(section, key)
        for section, field in Settings.model_fields.items()
        for key in getattr(field.annotation, "model_fields", {})
    )


def by_env_name(settings: Settings) -> dict[str, Any]:
    """Value of each setting by the name of its environment variable; secrets stay wrapped."""
    return {env_name(section, key): value for section, part in settings for key, value in part}


def load_settings() -> Settings:
    """Read the settings from the environment, and from the files in the folder that CHIMERA_SECRETS_DIR names.

    Raises:
        ConfigError: a variable or file is unknown or its value is wrong; the message contains no secret.
    """
    # pydantic-settings reads only the names it knows, so it would silently ignore a misspelt section.
    if unknown := sorted(name for name in set_names(ENV_PREFIX) if name.upper() not in env_names()):
        raise ConfigError("; ".join(map(_explain_unknown, unknown)))
    try:
        return Settings(_secrets_dir=secrets_folder())
    except ValidationError as error:
        problems = "; ".join(_explain(problem) for problem in error.errors(include_input=False))
        raise ConfigError(problems) from None
    except SettingsError as error:  # the files of the folder are too large, those of others too
        raise ConfigError(f"{SECRETS_DIR}: {error}; expected a folder of settings and secrets") from None


def _explain_unknown(name: str) -> str:
    shown = name if name.isprintable() else ascii(name)
    close = difflib.get_close_matches(name.upper(), env_names(), n=1, cutoff=0.85)
    return f"{shown}: no such setting; {f'did you mean {close[0]}?' if close else f'expected {ENV_FORM}'}"


def _explain(problem: Mapping[str, Any]) -> str:
    if isinstance(contradiction := problem.get("ctx", {}).get("error"), ContradictionError):
        return str(contradiction)
    name = f"{ENV_PREFIX}{ENV_DELIMITER.join(str(part) for part in problem['loc']).upper()}"
    return f"{name}: {validation_message(problem)}"
