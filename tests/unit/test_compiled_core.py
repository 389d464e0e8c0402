"""The compiled core beside numpy: the same rows, verdicts and records, whatever the bytes."""

import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import lz4.frame
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.avro_cases import damaged, encode, make_family, record
from support.both_paths import by_both, decoded, path, plain
from support.decoding import ANY, FAMILY, GOOD, good

from pipeline.columns import Spans, core
from pipeline.decode.decoder import Decoder
from pipeline.schema.framing import frame_single_object
from pipeline.transport.batch_format import DamagedBatchError
from pipeline.transport.codecs import unpacked_size
from pipeline.transport.packed import read_sparse

_HEAD, _LZ4 = 61, 3
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


@settings(max_examples=200)
@given(
    texts=st.lists(st.sampled_from([b"a", b"bb", b"ccc", b"\xff", b"d\0"]), min_size=1, max_size=40),
    size=st.integers(1, 8),
)
def test_slices_share_the_texts_of_valid_rows_alone(texts: list[bytes], size: int) -> None:
    """A text of a rejected record is in no column: it would be sent to the server with the others."""
    family = make_family([record([{"name": "text", "type": "string"}, {"name": "open", "type": "boolean"}])])
    frame, decoder = family.schema.fingerprint, Decoder(family)
    bodies = [bytes([2 * len(text)]) + text + bytes([number % 7 // 3]) for number, text in enumerate(texts)]
    values = [frame_single_object(frame, body) for body in bodies]  # every seventh one has a boolean of 2
    slices = [(Spans.of(values[first : first + size]), None) for first in range(0, len(values), size)]
    compiled, reference = by_both(lambda: decoder.decode_slices(slices, len(values)))
    assert plain(compiled) == plain(reference) == plain(decoder.decode(values))
    column: Any = compiled.columns["text"]
    assert sorted(column.values) == sorted(set(column.to_list()))


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("block", [4, 5, 6, 7])
@pytest.mark.parametrize("content", [b"", b"a", b"event " * 60_000, os.urandom(300_000), bytes(1 << 23)])
def test_the_size_of_a_frame_is_known_without_reading_it(
    content: bytes, block: int, checked: bool, linked: bool
) -> None:
    """Of all forms of LZ4 frames with full blocks; without the core, none may depend on the one before."""
    frame = lz4.frame.compress(
        content, block_size=block, block_linked=linked, content_checksum=checked, block_checksum=checked
    )
    compiled, plain_size = by_both(lambda: unpacked_size(_LZ4, memoryview(frame)))
    assert compiled == len(content)
    assert plain_size == len(content) or (plain_size is None and linked)


@settings(max_examples=300)
@given(at=st.integers(0, 400), octet=st.integers(0, 255), cut=st.integers(0, 400))
def test_a_damaged_frame_has_no_size_or_any(at: int, octet: int, cut: int) -> None:
    """Damage may show only when it is decompressed; a cut always shows."""
    frame = bytearray(lz4.frame.compress(os.urandom(200) + b"event " * 300, content_checksum=True, block_linked=False))
    short = memoryview(bytes(frame[: 1 + cut % (len(frame) - 1)]))
    assert by_both(lambda: unpacked_size(_LZ4, short)) == (None, None)
    frame[at % len(frame)] = octet
    sizes = by_both(lambda: unpacked_size(_LZ4, memoryview(bytes(frame))))
    assert all(size is None or size >= 0 for size in sizes)


def test_blocks_that_are_not_full_are_counted_as_full_ones() -> None:
    """The size is a bound then: it limits the memory for the records."""
    with lz4.frame.LZ4FrameCompressor(block_size=4, auto_flush=True, block_linked=False) as writer:
        frame = writer.begin() + writer.compress(b"a" * 100) + writer.compress(b"b" * 100) + writer.flush()
    assert lz4.frame.decompress(frame) == b"a" * 100 + b"b" * 100
    assert by_both(lambda: unpacked_size(_LZ4, memoryview(frame))) == ((1 << 16) + 100,) * 2


@given(st.lists(st.tuples(st.uuids(), st.sampled_from(["text", "TEXT", "bytes", "braces", "none", "other", "cut"]))))
def test_keys_that_are_not_the_session_in_the_usual_form_are_marked(keys: list[tuple[UUID, str]]) -> None:
    """Text of either case and the 16 bytes are the usual forms."""
    written: dict[str, Callable[[UUID], bytes | None]] = {
        "text": lambda key: str(key).encode(),
        "TEXT": lambda key: str(key).upper().encode(),
        "bytes": lambda key: key.bytes,
        "braces": lambda key: f"{{{key}}}".encode(),
        "none": lambda _: None,
        "other": lambda key: str(UUID(int=key.int ^ 1)).encode(),
        "cut": lambda key: str(key).encode()[:-1],
    }
    spans = Spans.of([written[form](key) for key, form in keys])
    ids = np.frombuffer(b"".join(key.bytes for key, _ in keys), "V16")
    usual = [form in {"text", "TEXT", "bytes"} for _, form in keys]
    assert (~_core().other_uuids(spans, ids)).tolist() == usual


def _core() -> core.Core:
    loaded = core.compiled()
    assert loaded is not None
    return loaded


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
