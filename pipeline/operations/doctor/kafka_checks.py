"""Checks of Kafka: the brokers, their clock, topics, rights, the registry and the group."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

from pipeline.catalog import Catalog, Family, TopicSpec
from pipeline.config import KafkaSettings, RegistrySettings, Settings
from pipeline.kafka.failures import check_connection
from pipeline.kafka.newest import newest_timestamp
from pipeline.kafka.offsets import TopicReader
from pipeline.kafka.registry import UnknownSchemaError, registry_of
from pipeline.kafka.topics import Action, TopicAdmin, plan
from pipeline.operations.doctor.results import CheckResult, fail, ok, warn
from pipeline.schema.writer_schema import UnresolvableError
from pipeline.worker.fresh_group import check_group
from pipeline.worker.preflight import check_topics

_AHEAD_SECONDS = 1.0
_SOME_ID = 1  # whichever: an answer is what counts


def broker(settings: KafkaSettings) -> Iterator[CheckResult]:
    """Connect, and count the brokers."""
    check_connection(settings)
    brokers = TopicAdmin(settings).read(()).brokers
    yield ok("kafka", f"{settings.bootstrap_servers}, {brokers} broker{'s' if brokers > 1 else ''}")


def clock(settings: KafkaSettings, catalog: Catalog) -> Iterator[CheckResult]:
    """Compare the newest timestamps that brokers have given with this machine's clock; Kafka tells no time itself."""
    times = [newest_timestamp(settings, topic.name) for topic in catalog.topics if topic.timestamps == "broker"]
    newest = max((time for time in times if time is not None), default=None)
    if newest is None:
        yield ok("broker clock", "no record yet, so its clock isn't known")
        return
    ahead = newest / 1000 - datetime.now(UTC).timestamp()
    if ahead > _AHEAD_SECONDS:
        yield warn(
            "broker clock",
            f"the newest record is {ahead:.1f} s ahead of this machine's clock",
            "synchronise the clocks of brokers, ClickHouse and workers",
        )
    else:
        yield ok("broker clock", "no record is newer than this machine's clock")


def topics(settings: Settings, catalog: Catalog) -> Iterator[CheckResult]:
    """Compare the topics with topics.yaml, the rollup's state topic among them."""
    admin = TopicAdmin(settings.kafka)
    changes = plan(catalog.topics, admin.read(topic.name for topic in catalog.topics), settings.topics.file)
    for change in changes:
        differing = ", ".join(f"{each.name} {each.old}, declared {each.new}" for each in change.settings)
        if change.action is Action.CREATE:
            yield fail("topics", f"{change.topic.name}: missing", "chimera topics apply")
        elif change.action is Action.ALTER:
            found = fail if _matters(change.topic, differing) else warn
            yield found("topics", f"{change.topic.name}: {differing}", "chimera topics apply")
    if all(change.action is Action.KEEP for change in changes):
        state = [topic.name for topic in catalog.topics if topic.state_of]
        beside = f", with the state of the rollup in {state[0]}" if state else ""
        yield ok("topics", f"{len(changes)} as declared{beside}")


def _matters(topic: TopicSpec, differing: str) -> bool:
    """Tell whether records would be lost: a state that isn't compacted is deleted, dead letters that are, too."""
    return "cleanup.policy" in differing and (topic.state_of is not None or topic.family is None)


def rights(settings: Settings, catalog: Catalog) -> Iterator[CheckResult]:
    """Check the rights that this login has, as the worker does before its start."""
    check_topics(settings.kafka, catalog, catalog.rollup if settings.rollup.enabled else None)
    yield ok("kafka rights", "READ on topics and group, WRITE on dead letters and state")


def registry(settings: RegistrySettings) -> Iterator[CheckResult]:
    """Ask the registry for any schema."""
    client = registry_of(settings)
    if client is None:
        yield ok("registry", "none is set; records in Confluent's framing are rejected")
        return
    with suppress(UnknownSchemaError, UnresolvableError):
        client.schema(_SOME_ID)
    yield ok("registry", f"{settings.url} answers")


def group(settings: Settings, catalog: Catalog) -> Iterator[CheckResult]:
    """Check that no filled table would be filled again, and count the partitions that the group has committed."""
    if not settings.worker.allow_fresh_group:
        check_group(settings, catalog)
    committed = total = 0
    for family in catalog.families:
        done, partitions = _committed(settings.kafka, family)
        committed, total = committed + done, total + partitions
    yield ok("group", f"{settings.kafka.group_id} has committed {committed} of {total} partitions")


def _committed(settings: KafkaSettings, family: Family) -> tuple[int, int]:
    with TopicReader(settings, family.topic.name) as log:
        commits = log.committed(log.partitions())
    return sum(offset is not None for offset in commits.values()), len(commits)
