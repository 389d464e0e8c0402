"""Metadata that other JSON libraries write: half surrogates and numbers that don't fit 64 bits."""

import resource
from pathlib import Path

import orjson
import pytest

from pipeline.privacy.hashing import Hasher
from pipeline.privacy.metadata import MetadataFilter
from pipeline.schema.metadata import InvalidMetadataError, read_metadata
from pipeline.schema.privacy import Metadata

_HASHER = Hasher(b"any key")
_FILTER = MetadataFilter(Metadata({"overlay": frozenset({"chat"}), "n": frozenset()}), _HASHER)
_HALF = "\\ud83d"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (f'{{"overlay": "{_HALF}"}}', {"overlay": "�"}),
        (f'{{"overlay": "a{_HALF}b{_HALF}"}}', {"overlay": "a�b�"}),
        ('{"overlay": "\\ude00\\ud83d"}', {"overlay": "��"}),
        (f'{{"{_HALF}": 1}}', {"�": 1}),
        (f'{{"n": [{{"m": "{_HALF}"}}]}}', {"n": [{"m": "�"}]}),
        (f'{{"n": 1.5, "a": "\\ud83d\\ude00", "b": "{_HALF}"}}', {"n": 1.5, "a": "😀", "b": "�"}),
    ],
    ids=["alone", "in a text", "the wrong way round", "in a key", "nested", "beside a whole one"],
)
def test_a_half_surrogate_becomes_the_replacement_character(text: str, read: dict[str, object]) -> None:
    """The event is a JSON object and stays one; only the character that is none is replaced."""
    assert read_metadata(text) == read
    assert read_metadata(text.encode()) == read


@pytest.mark.parametrize(
    "digits",
    [
        "18446744073709551616",
        "-9223372036854775809",
        "123456789012345678901234567890",
        "123456789012345678901234567891",
        "9" * 6_000,
        "1e999",
    ],
    ids=["2^64", "-2^63-1", "ends in 0", "ends in 1", "6,000 digits", "beyond a float"],
)
@pytest.mark.parametrize("form", ['{{"n": {0}}}', '{{"other": {0}}}', '{{"n": [1, {{"n": {0}}}]}}'])
def test_a_number_beyond_64_bits_is_hashed_by_its_digits(digits: str, form: str) -> None:
    """The hash is that of the digits, as they were written: two numbers that differ have two hashes."""
    stored = _FILTER(form.format(digits).encode())
    assert orjson.dumps(_HASHER.mask(digits)) in stored


@pytest.mark.parametrize("digits", ["1e20", "1.5e300", "9223372036854775808", "18446744073709551615", "2.5"])
def test_the_hash_of_any_other_number_stays(digits: str) -> None:
    """Hashes that are stored already still match."""
    shortest = orjson.dumps(orjson.loads(digits)).decode()
    assert orjson.dumps(_HASHER.mask(shortest)) in _FILTER(f'{{"other": {digits}}}'.encode())


@pytest.mark.parametrize(
    "text",
    ['{"n": NaN}', '{"n": -Infinity}', f'["{_HALF}"]', f'"{_HALF}"', f'{{"n": "{_HALF}}}', '{"n": 01}', '{"n": "\n"}'],
)
def test_text_that_is_no_json_object_is_still_refused(text: str) -> None:
    """The second reader, too, accepts JSON objects only."""
    with pytest.raises(InvalidMetadataError, match=r"^a JSON object$"):
        read_metadata(text)


def test_limits_hold_for_half_surrogates_too() -> None:
    """Depth and number of values are bounded, however the text is read."""
    deep = '{"n":' * 17 + f'"{_HALF}"' + "}" * 17
    for text in (deep, '{"n":' * 900 + f'"{_HALF}"' + "}" * 900, '{"n":' * 5_000 + "1" + "}" * 5_000):
        with pytest.raises(InvalidMetadataError, match="in each other"):
            read_metadata(text)
    with pytest.raises(InvalidMetadataError, match="at most 1000 values"):
        read_metadata(f'{{"n": ["{_HALF}"{",1" * 1_000}]}}')


def test_filtered_metadata_takes_the_memory_of_its_text() -> None:
    """No unused rest of a longer allocation stays with each object: 20,000 of them took 80 MB that way."""
    _FILTER(b'{"n":0}')
    before = _resident_bytes()
    kept = [_FILTER(b'{"n":%d,"overlay":"chat"}' % number) for number in range(20_000)]
    assert _resident_bytes() - before < 20_000_000
    assert len(kept) == 20_000


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
