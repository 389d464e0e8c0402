"""Topics, event families and the rollup, as values."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, Field, model_validator

from pipeline.errors import ConfigError
from pipeline.schema.versions import Schema

DEAD_LETTERS = ".dlq"
"""Suffix that the name of a dead-letter topic adds to its source's name."""

_TIMESTAMPS = {"broker": "LogAppendTime", "producer": "CreateTime"}
# The broker compacts closed segments only. Small segments close early, so that readers find fewer superseded records.
_COMPACTION = {"segment.bytes": str(16 * 1024 * 1024), "min.cleanable.dirty.ratio": "0.1"}


class BatchPolicy(BaseModel, extra="forbid", frozen=True, strict=True):
    """The limits of a micro-batch; the one that is reached first ends it, unless it has too few rows."""

    max_rows: int = Field(ge=1, le=1_000_000)
    max_bytes: int = Field(ge=1024, le=256 * 1024 * 1024)
    linger_seconds: float = Field(gt=0, le=600)
    min_rows: int = Field(1, ge=1, le=1_000_000)
    """Rows below which a micro-batch waits on after its linger."""
    max_linger_seconds: float | None = Field(None, gt=0, le=3600)
    """Time after which a micro-batch ends with any number of rows; the linger if there is none."""

    def linger_of(self, rows: int) -> float:
        """Seconds that so many rows wait for more."""
        return max(self.linger_seconds, self.max_linger_seconds or 0) if rows < self.min_rows else self.linger_seconds


class RowRetention(BaseModel, extra="forbid", frozen=True, strict=True):
    """Ages of a table's days at which they move to slower disks, and are deleted."""

    warm_after_days: int = Field(ge=1, le=36_500)
    cold_after_days: int = Field(ge=1, le=36_500)
    delete_after_days: int = Field(ge=1, le=36_500)

    @model_validator(mode="after")
    def _ages_grow(self) -> Self:
        if not self.warm_after_days < self.cold_after_days < self.delete_after_days:
            raise ValueError("warm_after_days, cold_after_days and delete_after_days, each more than the one before")
        return self


class TopicSpec(BaseModel, extra="forbid", frozen=True, strict=True):
    """A Kafka topic as topics.yaml declares it."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")
    partitions: int = Field(ge=1, le=10_000)
    replication: int = Field(ge=1, le=32)
    retention_hours: float = Field(ge=0.01, le=1_000_000, allow_inf_nan=False)
    max_message_bytes: int = Field(ge=1024, le=256 * 1024 * 1024)
    timestamps: Literal["broker", "producer"]
    cleanup: Literal["delete", "compact"] = "delete"
    state_of: str | None = None
    batch: BatchPolicy | None = None
    rows: RowRetention | None = None
    family: str | None = None
    key: str | None = None
    table: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")

    @property
    def config(self) -> dict[str, str]:
        """The broker's configuration of this topic: name to value, as Kafka spells both."""
        retention = {"retention.ms": str(round(self.retention_hours * 3_600_000))}
        return {
            "cleanup.policy": self.cleanup,
            **(_COMPACTION if self.cleanup == "compact" else retention),
            "max.message.bytes": str(self.max_message_bytes),
            "message.timestamp.type": _TIMESTAMPS[self.timestamps],
        }

    @property
    def fills(self) -> str | None:
        """The table that stores its records; None for a topic without a family."""
        return self.family and (self.table or self.family)


@dataclass(frozen=True, slots=True)
class Family:
    """One event family: its topic, key, table, dead-letter topic, batch policy and schemas."""

    name: str
    topic: TopicSpec
    key: str
    """Name of the field that keys the records."""
    table: str
    dead_letters: TopicSpec
    batch: BatchPolicy
    schemas: tuple[Schema, ...]
    """All versions, oldest first."""

    @property
    def schema(self) -> Schema:
        """The newest schema: records are resolved to it and held to its bounds."""
        return self.schemas[-1]


class RollupSpec(NamedTuple):
    """The hourly rollup: its source family, and the topic that keeps its state."""

    source: Family
    state: TopicSpec


@dataclass(frozen=True)
class Catalog:
    """All topics and families, and the rollup if topics.yaml declares one."""

    topics: tuple[TopicSpec, ...]
    families: tuple[Family, ...]
    rollup: RollupSpec | None

    def family(self, name: str) -> Family:
        """The family with this name.

        Raises:
            ConfigError: no family has this name; the message lists the families.
        """
        for family in self.families:
            if family.name == name:
                return family
        known = ", ".join(family.name for family in self.families)
        raise ConfigError(f"no event family {name!r}; expected one of {known}")
