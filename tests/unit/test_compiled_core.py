"""The compiled core beside numpy: the same rows, verdicts and records, whatever the bytes."""

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.avro_cases import damaged, encode, make_family, record
from support.both_paths import by_both, decoded, path, plain
from support.decoding import ANY, FAMILY, GOOD, good

from pipeline.columns import core
from pipeline.decode.decoder import Decoder
from pipeline.schema.framing import frame_single_object
from pipeline.transport.batch_format import DamagedBatchError
from pipeline.transport.packed import read_sparse

_HEAD = 61
_DECODER = Decoder(FAMILY)


def test_the_core_is_built_and_used() -> None:
    """`make install` compiles it."""
    assert core.compiled() is not None
    assert core.why_not() == ""


def test_a_setting_turns_it_off() -> None:
    """Then numpy does all, and the worker can say why."""
    with path("numpy"):
        assert core.compiled() is None
        assert core.why_not() == "a setting turns it off"


def test_only_a_library_of_this_very_source_is_used(tmp_path: Path) -> None:
    """In any other case numpy does all, for a reason in one line."""
    assert core.load(core._FILE, core._SOURCE)[1] == ""
    other, library = tmp_path / "core.zig", tmp_path / core._FILE.name
    other.write_bytes(core._SOURCE.read_bytes() + b"\n")
    assert core.load(core._FILE, other) == (
        None,
        f"{core._FILE} isn't built from {other}: install the package again",
    )
    foreign = bytearray(core._FILE.read_bytes())
    foreign[18] ^= 0xFF  # the kind of machine
    for content in (None, b"", b"text", bytes(foreign), foreign[:1000]):
        if content is not None:
            library.write_bytes(content)
        loaded, why = core.load(library, core._SOURCE)
        assert loaded is None
        assert why.startswith("it can't be loaded: ")
        assert "\n" not in why
    assert core.load(Path("libc.so.6"), core._SOURCE)[0] is None


def test_several_threads_decode_at_once() -> None:
    """The core has no state of its own."""
    values = [good(note=f"{number % 7}", count=number % 12) for number in range(3000)]
    expected = plain(_DECODER.decode(values))
    with ThreadPoolExecutor(4) as pool:
        assert all(plain(rows) == expected for rows in pool.map(lambda _: _DECODER.decode(values), range(24)))


def test_a_forked_process_decodes() -> None:
    """Also while other threads of its parent do."""
    expected = plain(_DECODER.decode([good()] * 100))
    if (child := os.fork()) == 0:
        os._exit(plain(_DECODER.decode([good()] * 100)) != expected)
    assert os.waitpid(child, 0) == (child, 0)


def test_a_schema_may_have_hundreds_of_fields() -> None:
    """The core has no limit of its own."""
    family = make_family([record([{"name": f"f{number}", "type": "string"} for number in range(400)])])
    frame = family.schema.fingerprint
    bodies = [b"".join(b"\x04%02d" % ((number + at) % 90) for at in range(400)) for number in range(50)]
    rows = decoded(Decoder(family), [frame_single_object(frame, body) for body in (*bodies, bodies[0][:-1])])
    assert (len(rows), len(rows.rejections)) == (50, 1)


@settings(max_examples=300)
@given(values=st.lists(st.just(good()) | damaged(good()) | st.binary(max_size=40).map(lambda end: good()[:10] + end)))
def test_any_records_get_the_same_verdicts(values: list[bytes]) -> None:
    """Valid and damaged ones, in one micro-batch."""
    decoded(_DECODER, values)


_EDGES: dict[str, list[Any]] = {
    "count": [0, 10, -1, 11, 2**31 - 1, -(2**31)],
    "ratio": [0.0, -0.0, 3.4e38, float("inf"), float("-inf"), float("nan"), 1e-45],
    "open": [True, False],
    "id": [
        "6D9A30C2-15fe-4b7d-a2c8-0e74b95f1d36",
        "6D9A30C2-15fe-4b7d-a2c8-0e74b95f1d3g",
        "6D9A30C2x15fe-4b7d-a2c8-0e74b95f1d36",
        "6D9A30C2-15fe-4b7d-a2c8-0e74b95f1d3",
        "\u00e4" * 18,
        "",
    ],
    "kind": ["open", "shut", "", "opem", "Open", "open\0"],
    "slug": ["a", "a-b", "", "-", "A", "a\n", "\u00e4", "a" * 10_000],
    "sha": ["0123abcd", "0123abcD", "0123abc", "0123abcd0", "\u00e4" * 4],
    "price": [
        b"",
        b"\0",
        b"\xff",
        (9999).to_bytes(2, "big"),
        (10000).to_bytes(2, "big"),
        bytes(20),
        bytes(7) + b"\1",
        bytes(8) + b"\1",
        b"\xff" * 9,
        b"\1" + bytes(7) + b"\1",
        b"\x7f" + b"\xff" * 7,
        b"\x80" + bytes(7),
    ],
    "note": ["", "123456", "1234567", "\u00e4\u00e4\u00e4", "\u20ac\u20ac", "\U0001f600", "a\0b", "\0"],
}


@pytest.mark.parametrize("name", _EDGES)
def test_values_at_the_edges_get_the_same_verdicts(name: str) -> None:
    """Each alone, and all together with valid records in between."""
    values = [
        frame_single_object(FAMILY.schema.fingerprint, encode(ANY, GOOD | {name: value})) for value in _EDGES[name]
    ]
    for value in values:
        decoded(_DECODER, [value])
    decoded(_DECODER, [each for value in values for each in (value, good(), value)])


_NUMBERS = [
    b"\0",
    b"\x80\0",
    b"\xff" * 4 + b"\x0f",
    b"\xfe\xff\xff\xff\x0f",
    b"\x80\x80\x80\x80\x10",
    b"\x81\x80\x80\x80\x10",
    b"\xff" * 8 + b"\0",
    b"\xff" * 9 + b"\0",
    b"\xff" * 9 + b"\1",
    b"\xfe" + b"\xff" * 8 + b"\1",
    b"\xff" * 9 + b"\2",
    b"\xff" * 10 + b"\1",
]


@pytest.mark.parametrize("avro_type", ["int", "long"])
def test_every_form_of_a_number_gets_the_same_verdict(avro_type: str) -> None:
    """Also with bytes behind it, and cut short."""
    family = make_family([record([{"name": "number", "type": avro_type}])])
    bodies = [body for number in _NUMBERS for body in (number, number + b"\0", number[:-1])]
    for body in bodies:
        decoded(Decoder(family), [frame_single_object(family.schema.fingerprint, body)])


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=30))
def test_any_bytes_of_a_text_get_the_same_verdicts(texts: list[bytes]) -> None:
    """UTF-8 is what Python's decoder takes; distinct values have one number each."""
    schema = record([{"name": "text", "type": "string"}, {"name": "octets", "type": "bytes"}])
    family = make_family([schema])
    frame = family.schema.fingerprint
    bodies = [bytes([2 * len(text)]) + text for text in texts]
    rows = decoded(Decoder(family), [frame_single_object(frame, body + body) for body in bodies])
    assert len(rows) + len(rows.rejections) == len(texts)


@pytest.mark.parametrize("length", range(4))
def test_every_start_of_a_character_gets_the_same_verdict(length: int) -> None:
    """All first and second bytes, with bytes that continue them or don't."""
    family = make_family([record([{"name": "text", "type": "string"}])])
    texts = [bytes((first, second)) + b"\x80" * length for first in range(256) for second in range(0, 256, 7)]
    frame = family.schema.fingerprint
    decoded(Decoder(family), [frame_single_object(frame, bytes([2 * len(text)]) + text) for text in texts])


def test_many_distinct_texts_are_told_apart() -> None:
    """More of them than a slice of records has."""
    family = make_family([record([{"name": "text", "type": "string"}])])
    frame = family.schema.fingerprint
    texts = [b"%05d" % (number * 7919 % 20_011) for number in range(40_000)]
    rows = decoded(Decoder(family), [frame_single_object(frame, b"\x0a" + text) for text in texts])
    column: Any = rows.columns["text"]
    assert column.to_list() == texts
    assert len(column.values) == 20_011


@given(data=st.data())
def test_any_bytes_of_a_batch_are_the_same_records_or_the_same_damage(data: st.DataObject) -> None:
    """Also what lies in front of the records in the head of the batch."""
    bodies = data.draw(
        st.lists(st.binary(min_size=6, max_size=30).map(lambda body: bytes([2 * len(body)]) + b"\0" + body[1:]))
    )
    rest = data.draw(st.sampled_from([b"", b"\0", b"\x02\x01"]))
    count = len(bodies) + data.draw(st.sampled_from([0, 0, 0, -1, 1]))
    last_delta = max(count - 1, 0) + data.draw(st.sampled_from([0, 0, 3, 1 << 20]))
    attributes = data.draw(st.sampled_from([0, 8]))
    head = struct.pack(">qiibIhiqqqhii", 7, 0, 0, 2, 0, attributes, last_delta, 1000, 2000, -1, -1, -1, count)
    batch = memoryview(head + b"".join(bodies) + rest)
    assert len(head) == _HEAD
    compiled, reference = by_both(lambda: _read(batch))
    assert compiled == reference


def _read(batch: memoryview) -> Any:
    try:
        columns = read_sparse(batch, 0)
    except DamagedBatchError as error:
        return str(error)
    spans = (columns.keys, columns.values, columns.headers)
    arrays = [columns.offsets, columns.timestamps, *(part for each in spans for part in (each.starts, each.lengths))]
    return [each.tolist() for each in arrays]
