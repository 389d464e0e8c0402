"""Raw dumps: read as written, and refused with the line if they are damaged."""

import gzip
from pathlib import Path

import pytest
from support.records import TOPIC_ID
from support.source_files import dumped, write_dump

from pipeline.operations.lineage.dump import DumpedRecord, dumped_line, dumped_records
from pipeline.operations.lineage.sources import SourceError

_RECORDS = [
    DumpedRecord("old", TOPIC_ID, 3, 7, 1_769_817_600_000, b"key", b"\xc3\x01\x00\xff", (("a", b"\x00"), ("a", None))),
    DumpedRecord("old", TOPIC_ID, 65_535, 2**63 - 1, -1, None, None),
    DumpedRecord("old", None, 0, 0, 0, b"", b""),
]


def _read(path: Path) -> list[tuple[int, DumpedRecord]]:
    with path.open("rb") as file:
        return list(dumped_records(path, file))


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
def test_a_dump_is_read_as_it_was_written(tmp_path: Path, *, zipped: bool) -> None:
    """With null and empty values, and headers of one name."""
    path = write_dump(tmp_path / "dump", _RECORDS)
    if zipped:
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert _read(path) == list(enumerate(_RECORDS, 1))


def test_names_that_a_reader_does_not_know_are_ignored(tmp_path: Path) -> None:
    """A later version may add some."""
    path = tmp_path / "dump"
    path.write_bytes(dumped_line(_RECORDS[0]).replace(b'{"topic"', b'{"new":1,"topic"'))
    assert _read(path) == [(1, _RECORDS[0])]


_LINE = dumped_line(_RECORDS[0])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(_LINE[:40], "not JSON, or cut off", id="cut off"),
        pytest.param(b"\n", "not JSON", id="empty line"),
        pytest.param(b"[1]\n", "not an object", id="no object"),
        pytest.param(_LINE.replace(b'"offset":7', b'"offset":-7'), "offset: expected a whole number", id="offset"),
        pytest.param(_LINE.replace(b'"offset":7', b'"offset":true'), "offset: expected a whole number", id="no number"),
        pytest.param(_LINE.replace(b'"partition":3', b'"partition":65536'), "partition: ", id="partition"),
        pytest.param(_LINE.replace(b'"topic":"old"', b'"topic":1'), "topic: ", id="topic"),
        pytest.param(_LINE.replace(TOPIC_ID.encode(), b"short"), "topic_id: ", id="topic id"),
        pytest.param(_LINE.replace(b'"wwEA/w=="', b'"wwEA/w="'), "value: expected Base64", id="Base64"),
        pytest.param(_LINE.replace(b'"value":', b'"valve":'), "value: missing", id="no value"),
        pytest.param(_LINE.replace(b'"key":"a2V5"', b'"key":5'), "key: expected Base64", id="key"),
        pytest.param(_LINE.replace(b'[["a"', b'[["a",1'), "headers: ", id="headers"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes, words: str) -> None:
    """The records before it are read first."""
    path = tmp_path / "dump"
    path.write_bytes(_LINE + line)
    with path.open("rb") as file, pytest.raises(SourceError, match=f"line 2: .*{words}") as caught:
        assert [number for number, _ in dumped_records(path, file)] == [1]
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: data + b"rest"], ids=["cut off", "more"])
def test_a_damaged_gzip_file_is_refused(tmp_path: Path, damage: "type[bytes]") -> None:
    """The message says how many lines were whole."""
    path = write_dump(tmp_path / "dump", dumped([bytes([at]) * 99 for at in range(99)]))
    path.write_bytes(damage(gzip.compress(path.read_bytes())))
    with pytest.raises(SourceError, match=r"damaged behind line .* expected a whole gzip file"):
        _read(path)
