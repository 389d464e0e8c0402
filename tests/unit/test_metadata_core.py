"""Metadata in the compiled core beside MetadataFilter: the same bytes, or a mark."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.both_paths import path
from support.json_texts import KEYS, TEXTS, USUAL

from pipeline.catalog import load_catalog
from pipeline.config import Settings
from pipeline.privacy.hashing import Hasher
from pipeline.privacy.metadata import MetadataFilter
from pipeline.producer.sample import sample
from pipeline.schema.metadata import MAX_DEPTH, SHORT_BYTES, InvalidMetadataError
from pipeline.schema.privacy import Metadata

pytestmark = pytest.mark.untraced  # other tests reach the same lines, and the tracer doubles the time of many examples

_FILTER = MetadataFilter(Metadata(KEYS), Hasher(b"a key of the tests"))


def _checked(texts: list[bytes]) -> list[bytes | None]:
    made = _FILTER.usual(texts)
    assert len(made) == len(texts)
    for text, found in zip(texts, made, strict=True):
        if found is not None:
            assert found == _FILTER(text), text
    return made


@settings(max_examples=400, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_any_text_is_filtered_as_by_the_reference_or_marked(texts: list[bytes]) -> None:
    """The core never accepts a text that the reference refuses."""
    _checked(texts)


@settings(max_examples=200, deadline=None)
@given(st.lists(USUAL, min_size=1, max_size=6))
def test_usual_texts_are_filtered_in_the_core(texts: list[bytes]) -> None:
    """Nothing is left to the reference, but for escapes and many brackets."""
    for text, made in zip(texts, _checked(texts), strict=True):
        brackets = text.count(b"{") + text.count(b"[")
        assert made is not None or b"\\" in text or brackets > MAX_DEPTH or len(text) > SHORT_BYTES, text


def test_the_sample_is_filtered_in_the_core() -> None:
    """No text of it is marked; nor is one with a number or a text that isn't declared."""
    fields = {field.name: field for field in load_catalog(Settings()).family("ui_events").schema.fields}
    privacy = fields["metadata"].privacy
    assert isinstance(privacy, Metadata)
    reference = MetadataFilter(privacy, Hasher(b"any"))
    events = [event for _, event in sample(2000, seed=1, start=datetime(2026, 1, 5, tzinfo=UTC), hours=1)]
    texts = [str(event["metadata"]) for event in events if "metadata" in event]
    more = [json.dumps({**json.loads(text), "query": f"question {at}", "x": at / 8}) for at, text in enumerate(texts)]
    given = [text.encode() for text in texts + more]
    assert len(given) > 100
    assert reference.usual(given) == list(map(reference, given))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        ' \n{ "n"\t:\r1 , "kind" : [ ] } ',
        '{"n":[999999,-999999,1000000,-1000000,999999.999,1000000.5,0.0,-0.0,-0.001,1.0]}',
        '{"n":[0.1234,-9.8765,999999.9995,999999999999999999,12345678.1234567]}',
        '{"other":[1,-1,0,0.5,52.520008,"",true,null]}',
        '{"größe":"größer","größer":"chat","z":1,"a":2,"":3}',
        '{"kind":"chat","n":"chat","a":{"kind":"chat","b":[{"kind":""}]}}',
        '{"kind":"\x7f' + "😀" * 60 + '"}',
        '{"n":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH,
        '{"n":"' + "a" * (SHORT_BYTES - 8) + '"}',
        '{"n":[' + "1," * 980 + "1]}",
        '{"' + '":1,"'.join(map(str, range(90))) + '":1}',
    ],
    ids=[
        "empty",
        "blanks",
        "numbers",
        "large",
        "hashed",
        "order",
        "nested",
        "characters",
        "deep",
        "long",
        "many",
        "members",
    ],
)
def test_a_usual_text_is_filtered_in_the_core(text: str) -> None:
    """Up to the limits of sizes, numbers and depth."""
    assert _FILTER.usual([text.encode()]) == [_FILTER(text.encode())]


@pytest.mark.parametrize(
    "text",
    [
        '{"n":1,"n":2}',
        '{"n":1}}',
        '{"n":1,}',
        '{"n":-0}',
        '{"n":01}',
        '{"n":1.50}',
        '{"n":0.0001}',
        '{"n":1e3}',
        '{"n":1.}',
        '{"n":1000000000000000000}',
        '{"n":1.000000000000001}',
        '{"n":"\\u0041"}',
        '{"n":"\n"}',
        '{"n":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1),
        '{"n":"' + "a" * (SHORT_BYTES - 7) + '"}',
        '{"n":[' + '"a",' * 200 + "1]}",
        '{"' + '":1,"'.join(map(str, range(257))) + '":1}',
    ],
)
def test_an_unusual_text_is_marked(text: str) -> None:
    """The reference has the word on it, and its neighbours are filtered."""
    usual = b'{"n":1}'
    assert _FILTER.usual([usual, text.encode(), usual]) == [usual, None, usual]


def test_more_texts_than_a_call_has_room_for() -> None:
    """The results of several calls are in the order of the texts."""
    texts = [b'{"n":%d,"text":"question %d"%b}' % (number, number, b"," * (number % 3 == 0)) for number in range(5000)]
    made = _checked(texts)
    assert [number for number, found in enumerate(made) if found is None] == list(range(0, 5000, 3))
    assert _FILTER.usual([]) == []


def test_without_the_core_the_reference_filters_all() -> None:
    """The setting turns the core off for metadata, too."""
    with path("numpy"):
        assert _FILTER.usual([b"{}", b"x"]) == [None, None]


def test_several_threads_filter_at_once() -> None:
    """A call has no state beyond itself."""
    texts = [b'{"a%d":"question %d"}' % (number % 300, number) for number in range(2000)]
    expected = _checked(texts)
    with ThreadPoolExecutor(4) as pool:
        assert all(made == expected for made in pool.map(lambda _: _FILTER.usual(texts), range(12)))


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 200])
def test_hashes_of_the_core_are_hmac(size: int) -> None:
    """For keys below and beyond a block, and for texts around one."""
    reference = MetadataFilter(Metadata(KEYS), Hasher(b"k" * size))
    texts = [b'{"n":"%b"}' % (b"a" * length) for length in range(200)]
    assert reference.usual(texts) == list(map(reference, texts))


def test_a_refused_text_is_refused_with_the_core_too() -> None:
    """`usual` marks it, and the call explains it."""
    assert _FILTER.usual([b"[]"]) == [None]
    with pytest.raises(InvalidMetadataError):
        _FILTER(b"[]")
