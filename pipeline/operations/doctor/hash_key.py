"""The check that the hash key is the one that stored rows were hashed with: equal values must keep equal hashes."""

import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pipeline.catalog import Catalog, Family
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.coordinates import OFFSET, PARTITION, TOPIC_ID, Source, within
from pipeline.clickhouse.lookups import all_rows
from pipeline.columns import DictionaryColumn, Rows
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.kafka.offsets import TopicReader, offset_of
from pipeline.kafka.registry import registry_of
from pipeline.kafka.topics import TopicAdmin
from pipeline.operations.doctor.results import CheckResult, fail, ok, warn
from pipeline.privacy.hashing import Hasher, configured_hasher
from pipeline.privacy.sanitise import Sanitiser

_RECORDS = 200  # below the committed offset of a partition
_PARTITIONS = 4  # of each family

Hashed = Mapping[str, dict[int, str]]
"""Hashed values by field and offset."""


def hash_key(settings: Settings, catalog: Catalog) -> Iterator[CheckResult]:
    """Hash the newest stored records again, and compare with their rows."""
    same = other = 0
    ids = TopicAdmin(settings.kafka).ids(family.topic.name for family in catalog.families)
    for family in catalog.families:
        if any(field.privacy is not None for field in family.schema.fields) and family.topic.name in ids:
            for equal in _compared(settings, family, ids[family.topic.name]):
                same, other = same + equal, other + (not equal)
    if other and not same:
        yield fail(
            "hash key",
            f"none of {other} hashes in the tables is made with it: equal values would get other hashes from now on",
            "set CHIMERA_PRIVACY__HASH_KEY to the key of the workers",
        )
    elif other:
        yield warn("hash key", f"{other} of {same + other} hashes in the tables are made with another one")
    elif same:
        yield ok("hash key", f"{same} hashes in the tables are made with it")
    else:
        yield ok("hash key", "no hash in the tables to compare it with")


def _compared(settings: Settings, family: Family, topic_id: str) -> Iterator[bool]:
    """Yield for each hashed value of some records whether the row has the same; records without a row are left out."""
    decoder = Decoder(family, registry_of(settings.registry), settings.validation)
    with TopicReader(settings.kafka, family.topic.name, only_committed=True) as log:
        ranges, commits = log.ranges(), log.committed(log.partitions())
        chosen = [number for number, offset in commits.items() if offset and ranges[number]][:_PARTITIONS]
        for number in chosen:
            stop = min(commits[number] or 0, ranges[number].stop)
            offsets = range(max(ranges[number].start, stop - _RECORDS), max(ranges[number].start, stop))
            records = list(log.read({number: offsets}))
            times = np.array([record.timestamp()[1] for record in records], np.int64)
            rows = decoder.decode([record.value() for record in records], times)
            places = [offset_of(records[position]) for position in rows.positions.tolist()]
            hashed = _hashed(settings, family, rows, places)
            if hashed:
                yield from _equal(settings, family, Source.of(topic_id, number), hashed, rows)


def _hashed(settings: Settings, family: Family, rows: Rows, places: list[int]) -> Hashed:
    """Return the values that depend on the key, hashed with the configured one."""
    ours, anothers = (
        Sanitiser(family.schema, hasher)(rows)
        for hasher in (configured_hasher(settings.privacy), Hasher(secrets.token_bytes(32)))
    )
    found: dict[str, dict[int, str]] = {}
    for name in rows.columns:
        mine, theirs = _texts(ours.columns[name]), _texts(anothers.columns[name])
        differing = {
            place: one.decode() for place, one, another in zip(places, mine, theirs, strict=False) if one != another
        }
        if differing:
            found[name] = differing
    return found


def _texts(column: Any) -> list[bytes]:
    if isinstance(column, DictionaryColumn):
        return column.to_list()
    return column if isinstance(column, list) else []


def _equal(settings: Settings, family: Family, source: Source, hashed: Hashed, rows: Rows) -> Iterator[bool]:
    times = np.asarray(rows.columns["ts"], np.int64)
    offsets = sorted({offset for values in hashed.values() for offset in values})
    query = (
        f"SELECT {OFFSET}, {', '.join(f'`{name}`' for name in hashed)} FROM `{family.table}` "  # noqa: S608 (names of ours)
        f"WHERE {within(times)} AND {TOPIC_ID} = toUUID('{source.topic_id}') AND {PARTITION} = {source.partition} "
        f"AND {OFFSET} IN ({', '.join(map(str, offsets))})"
    )
    with explained(settings.clickhouse), connect(settings.clickhouse) as client:
        for offset, *values in all_rows(client, query):
            for (_, expected), value in zip(hashed.items(), values, strict=True):
                if offset in expected:
                    yield value == expected[offset]
