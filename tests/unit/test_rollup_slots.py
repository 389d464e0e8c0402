"""The choice of the snapshot to restore from the records of a partition in the state topic."""

import numpy as np
import pytest

from pipeline.rollup.keys import MANIFEST, Key
from pipeline.rollup.slots import Loaded, newest
from pipeline.rollup.snapshot import Snapshot, pack


def _written(slot: str, offset: int, topic_id: str = "t") -> dict[Key, bytes]:
    chunks, manifest = pack(Snapshot(topic_id, 0, offset, 0, {"window.hour": np.arange(offset)}))
    key = Key("g", topic_id, 0, slot, MANIFEST)
    return {key._replace(part=str(number)): chunk for number, chunk in enumerate(chunks)} | {key: manifest}


def _chunks(values: dict[Key, bytes]) -> dict[Key, bytes]:
    return {key: value for key, value in values.items() if key.part != MANIFEST}


def _summary(loaded: Loaded | None) -> tuple[int | None, int | None, list[str]]:
    assert loaded is not None
    offset = loaded.snapshot.offset if loaded.snapshot else None
    return offset, loaded.older_offset, [what.partition(":")[0] for what in loaded.damaged]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (_written("a.0", 5), (5, None, [])),
        (_written("a.0", 5) | _written("a.1", 4), (5, 4, [])),
        (_written("a.0", 5) | _written("a.1", 6) | _written("b.0", 3), (6, 5, [])),
        (_written("a.0", 5) | _written("b.1", 5), (5, 5, [])),
        (_written("a.0", 5) | _chunks(_written("a.1", 6)), (5, None, ["a.1"])),
        (_written("a.0", 5) | _written("a.1", 6) | _chunks(_written("a.1", 7)), (5, None, ["a.1"])),
        (_chunks(_written("a.0", 5)), (None, None, ["a.0"])),
        (_written("a.0", 5) | _written("a.1", 6, "another"), (5, None, [])),
    ],
    ids=[
        "one",
        "the newer of two",
        "whoever wrote it",
        "two of the same state",
        "half-written for the first time",
        "half-written over another one",
        "nothing whole",
        "another topic",
    ],
)
def test_the_newest_whole_snapshot_is_chosen(
    values: dict[Key, bytes], expected: tuple[int | None, int | None, list[str]]
) -> None:
    """The result has its offset, the offset of the second newest, and the skipped slots."""
    assert _summary(newest(values, "t")) == expected


@pytest.mark.parametrize("values", [{}, _written("a.0", 5, "another")], ids=["no records", "only another topic's"])
def test_a_partition_without_snapshots_has_no_damage(values: dict[Key, bytes]) -> None:
    """No snapshots and only damaged snapshots give different results."""
    assert newest(values, "t") is None


def test_at_the_same_offset_the_snapshot_with_more_closed_hours_is_newer() -> None:
    """The clock closes hours of a partition at rest, and then they are stored."""
    states = [(7_199_999, [1]), (7_200_000, [1]), (7_200_000, [])]
    values: dict[Key, bytes] = {}
    for number, (watermark, hours) in enumerate(states):
        chunks, manifest = pack(Snapshot("t", 0, 5, watermark, {"window.hour": np.array(hours, np.int64)}))
        key = Key("g", "t", 0, f"a.{number}", MANIFEST)
        values |= {key: manifest} | {key._replace(part=str(part)): chunk for part, chunk in enumerate(chunks)}
        for order in (values, dict(reversed(values.items()))):
            loaded = newest(order, "t")
            assert loaded
            assert loaded.snapshot
            assert (loaded.snapshot.watermark, len(loaded.snapshot.columns["window.hour"])) == (watermark, len(hours))


def test_chunks_are_joined_in_the_order_of_their_numbers() -> None:
    """The tenth chunk comes after the ninth; the order of reading doesn't matter."""
    random = np.random.default_rng(1)
    chunks, manifest = pack(Snapshot("t", 0, 9, 0, {"ids": np.frombuffer(random.bytes(11_000_000), "V16")}))
    assert len(chunks) > 10
    key = Key("g", "t", 0, "a.0", MANIFEST)
    values = {key: manifest} | {key._replace(part=str(number)): chunks[number] for number in range(len(chunks))[::-1]}
    assert _summary(newest(values, "t")) == (9, None, [])


@pytest.mark.parametrize("group", ["chimera", "a/b", "ü", ""])
@pytest.mark.parametrize("topic_id", ["Kq3mXo5pQ0uWm0n0aD2x7A", "pQY6EXi8/keSNa+h6y9aYw"])
@pytest.mark.parametrize("part", ["0", "12", MANIFEST])
def test_a_key_survives_encoding_and_decoding(group: str, topic_id: str, part: str) -> None:
    """Group names may have any characters; every third topic id has slashes."""
    key = Key(group, topic_id, 5, "9f86.1", part)
    assert Key.parse(bytes(key)) == key


@pytest.mark.parametrize("key", [b"", b"a/b", b"g/t/x/a.0/1", b"g/t/1/a.0/x", b"\xff/t/1/a.0/1"])
def test_keys_of_other_programs_are_skipped(key: bytes) -> None:
    """A record with another key format is ignored."""
    assert Key.parse(key) is None
