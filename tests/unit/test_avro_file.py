"""Avro container files as a source of records."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import pytest
from support.events import events
from support.source_files import avro_values, plain, write_avro

from pipeline.catalog import Family, load_catalog
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.operations.lineage.avro_file import AvroFile
from pipeline.operations.lineage.files import file_id
from pipeline.operations.lineage.sources import Order, SourceError, Surveyed, ignore
from pipeline.operations.lineage.spans import Bound

_COUNT = 200


@pytest.fixture(scope="module")
def family() -> Family:
    return load_catalog(Settings()).family("ui_events")


@pytest.fixture
def path(family: Family, tmp_path: Path) -> Path:
    """A file of many blocks."""
    return write_avro(tmp_path / "events.avro", family.schema.raw, avro_values(family, events("ui_events", _COUNT)))


def _survey(path: Path, family: Family) -> Surveyed:
    return AvroFile(path, family).survey(Order(family, Bound(), Bound()), ignore)


def _blocks(path: Path) -> list[tuple[int, int]]:
    """Return offset and size of each block."""
    with path.open("rb") as file:
        return [(block.offset, block.size) for block in fastavro.block_reader(file)]


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz", "snappy"])
def test_records_are_read_with_the_rules_of_the_worker(family: Family, tmp_path: Path, codec: str) -> None:
    """Each value of the file becomes a row, for each codec."""
    wanted = avro_values(family, events("ui_events", _COUNT))
    source = AvroFile(write_avro(tmp_path / "events.avro", family.schema.raw, wanted, codec), family)
    records = [record for stretch in source.read({0: (range(_COUNT),)}) for record in stretch.records]
    rows = Decoder(family, source).decode([record.value for record in records])
    assert (len(rows), rows.rejections) == (_COUNT, ())
    assert rows.columns["ts"] == pytest.approx([event["ts"] for event in wanted])
    assert [record.offset for record in records] == list(range(_COUNT))


def test_only_ranges_are_read_and_each_offset_is_in_one_stretch(path: Path, family: Family) -> None:
    """Blocks between the ranges are passed over."""
    stretches = list(AvroFile(path, family).read({0: (range(5, 9), range(150, 160))}))
    covered = [at for each in stretches for at in range(each.first, each.next_offset)]
    assert covered == [*range(5, 9), *range(150, 160)]
    assert [record.offset for each in stretches for record in each.records] == covered


def test_a_survey_counts_the_records_and_names_the_file_by_its_content(path: Path, family: Family) -> None:
    """The id is a UUID of version 5, and Kafka's are of version 4. A copy has the same one, a changed file another."""
    surveyed = _survey(path, family)
    assert surveyed.spans[0].offsets == range(_COUNT)
    copy = path.with_name("copy.avro")
    copy.write_bytes(path.read_bytes())
    assert surveyed.topic_id == file_id(copy)
    assert surveyed.topic_id.version == 5
    copy.write_bytes(path.read_bytes() + b"x")
    assert surveyed.topic_id != file_id(copy)


def test_the_id_of_a_file_can_be_computed_by_anybody(tmp_path: Path) -> None:
    """As docs/replay.md says; it must never change, or a file would be inserted a second time."""
    path = tmp_path / "file"
    path.write_bytes(b"chimera")
    assert file_id(path) == UUID("5d918f64-900c-5172-b4ff-ee904f0f267f")


def _cut(at: Callable[[int, int], int]) -> Callable[[bytes, list[tuple[int, int]]], bytes]:
    return lambda data, blocks: data[: at(*blocks[-1])]


def _turned(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(_cut(lambda at, size: at + size // 2), "block at byte", id="last block cut off"),
        pytest.param(_cut(lambda at, size: at + size - 1), "block at byte", id="last sync marker cut off"),
        pytest.param(_cut(lambda at, _size: at + 1), "block at byte", id="count alone"),
        pytest.param(lambda data, _: data[:30], "header at byte 0", id="header cut off"),
        pytest.param(lambda data, blocks: _turned(data, blocks[2][0] + 20), "block at byte", id="content"),
        pytest.param(lambda data, blocks: _turned(data, sum(blocks[1]) - 3), "block at byte", id="sync marker"),
        pytest.param(lambda data, blocks: _turned(data, blocks[1][0]), "block at byte", id="count"),
        pytest.param(lambda data, _: data + b"\x01", "block at byte", id="one more byte"),
    ],
)
def test_a_damaged_file_is_refused_with_its_place(
    path: Path, family: Family, damage: Callable[[bytes, list[tuple[int, int]]], bytes], words: str
) -> None:
    """The whole file is looked at before anything is inserted."""
    path.write_bytes(damage(path.read_bytes(), _blocks(path)))
    with pytest.raises(SourceError, match=f"damaged, {words}") as caught:
        _survey(path, family)
    assert str(caught.value).startswith(str(path))


def test_a_file_that_ends_within_the_count_of_a_block_is_refused(family: Family, tmp_path: Path) -> None:
    """From 64 records on, a count has two bytes. Fastavro's reader in Python takes that for the end of the file."""
    values = avro_values(family, events("ui_events", _COUNT))
    path = write_avro(tmp_path / "events.avro", family.schema.raw, values, block_bytes=20_000)
    at, _ = _blocks(path)[1]
    path.write_bytes(path.read_bytes()[: at + 1])
    with pytest.raises(SourceError, match=f"damaged, block at byte {at}: "):
        _survey(path, family)


def test_a_record_that_does_not_fit_its_block_is_named(family: Family, tmp_path: Path) -> None:
    """Without compression nothing but the walk through the records finds it."""
    values = avro_values(family, events("ui_events", 20))
    path = write_avro(tmp_path / "events.avro", family.schema.raw, values, "null")
    ((at, _), *_) = _blocks(path)
    data = path.read_bytes()
    length = data.index(str(values[1]["session_id"]).encode()) - 1  # the length of the text
    path.write_bytes(data[:length] + b"\x7f" + data[length + 1 :])
    with pytest.raises(SourceError, match=f"block at byte {at}: "):
        _survey(path, family)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"name": "llm_events"}, "expected a record named UiEvent", id="name"),
        pytest.param({"fields": [{"name": "ts", "type": "long"}]}, "not written, and without a default", id="fields"),
    ],
)
def test_a_foreign_schema_is_refused_with_the_difference(
    family: Family, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    """By the rules that a registry's schemas are held to."""
    path = write_avro(tmp_path / "events.avro", {**plain(family.schema.raw), **change}, [])
    with pytest.raises(SourceError, match=f"can't be resolved to {family.schema.file.name}: .*{words}"):
        AvroFile(path, family)


def test_a_file_that_changes_meanwhile_is_refused(path: Path, family: Family) -> None:
    """Its identity would be another one."""
    source = AvroFile(path, family)
    path.write_bytes(path.read_bytes() + b"\x00")
    with pytest.raises(SourceError, match="was changed"):
        list(source.read({0: (range(1),)}))


def test_an_empty_container_has_no_records(family: Family, tmp_path: Path) -> None:
    """A file with a header alone is whole."""
    assert not _survey(write_avro(tmp_path / "events.avro", family.schema.raw, []), family).spans[0].offsets


def test_a_file_is_read_block_by_block(path: Path, family: Family) -> None:
    """So that memory stays flat: the first record comes before the damage in the last block is found."""
    path.write_bytes(path.read_bytes()[:-1])
    records = AvroFile(path, family)._records(None, ignore)
    assert next(records).offset == 0
    with pytest.raises(SourceError):
        list(records)
