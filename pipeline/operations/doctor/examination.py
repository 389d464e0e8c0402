"""The examination: all checks in their order; a server that doesn't answer is asked once."""

from collections.abc import Iterator

from pipeline.catalog import Catalog
from pipeline.config import Settings, load_settings
from pipeline.operations.doctor import clickhouse_checks, kafka_checks
from pipeline.operations.doctor.barriers import barriers
from pipeline.operations.doctor.declared import declared_catalog
from pipeline.operations.doctor.hash_key import hash_key
from pipeline.operations.doctor.results import Check, CheckResult, Grade, found_by, ok, warn
from pipeline.privacy.hashing import configured_hasher

_APPLY, _MIGRATE = "chimera topics apply", "chimera migrate"


def examine(*, mend: bool = False) -> Iterator[CheckResult]:
    """Yield the findings as they come.

    Args:
        mend: remove the barriers that killed replays have left.
    """
    declared = list(found_by("settings", _settings))
    declared += [] if _failed(declared) else found_by("declarations", _declarations)
    yield from declared
    if _failed(declared):
        return
    settings = load_settings()
    catalog = declared_catalog(settings)
    kafka = list(found_by("kafka", lambda: kafka_checks.broker(settings.kafka)))
    yield from kafka
    clickhouse = list(found_by("clickhouse", lambda: clickhouse_checks.server(settings.clickhouse)))
    yield from clickhouse
    there = {"Kafka": not _failed(kafka), "ClickHouse": not _failed(clickhouse)}
    for name, check, servers, what_to_do in _checks(settings, catalog, mend=mend):
        absent = [server for server in servers if not there[server]]
        if absent:
            yield warn(name, f"not checked, because {absent[0]} doesn't answer or refuses")
        else:
            yield from found_by(name, check, what_to_do)


def _settings() -> Iterator[CheckResult]:
    settings = load_settings()
    configured_hasher(settings.privacy)
    yield ok("settings", f"group {settings.kafka.group_id}, database {settings.clickhouse.database}")


def _declarations() -> Iterator[CheckResult]:
    settings = load_settings()
    catalog = declared_catalog(settings)
    yield ok(
        "declarations", f"{len(catalog.families)} families, {len(catalog.topics)} topics in {settings.topics.file}"
    )


def _failed(findings: list[CheckResult]) -> bool:
    return any(finding.verdict is Grade.FAIL for finding in findings)


def _checks(settings: Settings, catalog: Catalog, *, mend: bool) -> list[tuple[str, Check, tuple[str, ...], str]]:
    """Return name, check, servers that it asks, and what to do if it fails."""
    kafka, clickhouse, both = ("Kafka",), ("ClickHouse",), ("Kafka", "ClickHouse")
    return [
        ("clocks", lambda: clickhouse_checks.clock(settings.clickhouse), clickhouse, ""),
        ("broker clock", lambda: kafka_checks.clock(settings.kafka, catalog), kafka, ""),
        ("topics", lambda: kafka_checks.topics(settings, catalog), kafka, _APPLY),
        ("kafka rights", lambda: kafka_checks.rights(settings, catalog), kafka, "grant the ACLs of docs/access.md"),
        ("registry", lambda: kafka_checks.registry(settings.registry), (), ""),
        ("migrations", lambda: clickhouse_checks.migrations(settings.clickhouse), clickhouse, _MIGRATE),
        ("clickhouse user", lambda: clickhouse_checks.user(settings.clickhouse), clickhouse, ""),
        ("tables", lambda: clickhouse_checks.tables(settings, catalog), clickhouse, _MIGRATE),
        ("windows", lambda: clickhouse_checks.windows(settings, catalog), both, _MIGRATE),
        ("group", lambda: kafka_checks.group(settings, catalog), both, ""),
        ("barriers", lambda: barriers(settings.clickhouse, catalog, mend=mend), clickhouse, ""),
        ("hash key", lambda: hash_key(settings, catalog), both, ""),
        ("disk", lambda: clickhouse_checks.disks(settings.clickhouse), clickhouse, ""),
    ]
