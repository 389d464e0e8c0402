"""Sanitised rows hold no personal data and no secrets; everything else stays."""

import hmac
import json
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import orjson
import pytest
from support import oracle, pii
from support.events import events

from pipeline.catalog import Family, load_catalog
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.errors import ConfigError, Reason
from pipeline.privacy import sanitise
from pipeline.privacy.hashing import Hasher, configured_hasher
from pipeline.privacy.metadata import MetadataFilter
from pipeline.privacy.sanitise import Sanitiser
from pipeline.privacy.user_agents import UserAgentReducer
from pipeline.schema.metadata import MAX_DEPTH, MAX_VALUES, InvalidMetadataError
from pipeline.schema.privacy import Metadata

HASHER = Hasher(b"a key of the tests")
CATALOG = load_catalog(Settings())
FIELDS = [(family, name) for family in CATALOG.families for name in pii.text_fields(family)]
_METADATA = MetadataFilter(Metadata(MappingProxyType({"kind": frozenset({"chat"}), "n": frozenset[str]()})), HASHER)


def _stored(family: Family, field: str) -> str:
    values = pii.records(family, events(family.name, 1)[0], field)
    rows = Decoder(family, sanitise=Sanitiser(family.schema, HASHER)).decode(values)
    return pii.searched([row[field] for row in oracle.rows_of(rows)])


def test_the_corpus_has_distinct_strings_that_the_search_finds() -> None:
    """Each string of the corpus occurs once, and the search finds it in the searched form of a row."""
    assert len({secret.text for secret in pii.CORPUS}) == len(pii.CORPUS) >= 100
    for secret in pii.CORPUS:
        for stored in (secret.text, f"before {secret.text} after", json.dumps({"note": [{secret.text: 1}]})):
            assert secret in pii.found(pii.searched([(1, stored)]))


@pytest.mark.parametrize(("family", "field"), FIELDS, ids=[f"{family.name}.{name}" for family, name in FIELDS])
def test_nothing_of_the_corpus_is_stored(family: Family, field: str) -> None:
    """No stored row contains a string of the corpus, in whatever form a field carries it."""
    assert pii.found(_stored(family, field)) == set()


@pytest.mark.parametrize(("family", "field"), FIELDS, ids=[f"{family.name}.{name}" for family, name in FIELDS])
def test_an_untreated_field_is_noticed(family: Family, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails if a single field is stored untreated."""
    treat = sanitise._treat
    monkeypatch.setattr(sanitise, "_treat", lambda each, hasher: None if each.name == field else treat(each, hasher))
    assert len(pii.found(_stored(family, field))) > 10


@pytest.mark.parametrize(
    ("user_agent", "stored"),
    [
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0",
            "Chrome 131 (Windows)",
        ),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0", "Firefox 132 (Linux)"),
        ("curl/8.5.0", "curl 8"),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "Googlebot 2"),
        ("Mozilla/5.0 (X11; Linux x86_64) Chrome/4155550142.0", "Chrome (Linux)"),
        ("alice-archerbot/2.1", HASHER.masked("alice-archerbot/2.1").decode()),
        ("", HASHER.masked("").decode()),
    ],
)
def test_a_user_agent_is_reduced(user_agent: str, stored: str) -> None:
    """Family, major version and system are kept; a user agent that ua-parser doesn't know becomes hash and length."""
    assert UserAgentReducer(HASHER)([user_agent.encode()]) == [stored.encode()]


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1000])
def test_hashes_are_hmac(size: int) -> None:
    """Other tools compute the same hashes with the same key."""
    key = b"k" * size
    for text in ("", "alice@example.com", "größer" * 100):
        assert Hasher(key).digest(text) == hmac.digest(key, text.encode(), "sha256").hex()
        assert Hasher(key).masked(text) == orjson.dumps(Hasher(key).mask(text))


def _hash(text: str) -> dict[str, Any]:
    return {"len": len(text), "sha256": HASHER.digest(text)}


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({}, {}),
        ({"n": 7, "kind": "chat"}, {"kind": "chat", "n": 7}),
        ({"n": [1.5, True, None, -3]}, {"n": [1.5, True, None, -3]}),
        ({"kind": "other", "n": "chat"}, {"kind": _hash("other"), "n": _hash("chat")}),
        ({"n": [4155550142, 52.520008, -1e6]}, {"n": [_hash("4155550142"), _hash("52.520008"), _hash("-1000000.0")]}),
        ({"who": 7}, {f"sha256:{HASHER.digest('who')}": _hash("7")}),
        ({"n": {"kind": "chat", "sha256": True}}, {"n": {"kind": "chat", f"sha256:{HASHER.digest('sha256')}": True}}),
        ({"n": [["größer"]]}, {"n": [[_hash("größer")]]}),
    ],
)
def test_metadata_keeps_declared_keys_and_values(given: dict[str, Any], stored: dict[str, Any]) -> None:
    """Declared keys and values are stored as canonical JSON."""
    assert _METADATA(orjson.dumps(given)) == orjson.dumps(stored, option=orjson.OPT_SORT_KEYS)


def test_the_last_of_two_equal_keys_counts() -> None:
    """The value of the first key isn't stored."""
    assert _METADATA(b'{"n": "alice", "n": 2}') == b'{"n":2}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"alice@example.com"',
        "{",
        '{"n": NaN}',
        "{'n': 1}",
        '{"n": 1} x',
        '{"n":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1),
        '{"n":' + "[" * 30_000 + "]" * 30_000 + "}",
        '{"n": [' + "1," * MAX_VALUES + "1]}",
    ],
    ids=["empty", "null", "array", "string", "cut", "NaN", "quotes", "more", "deep", "very deep", "many"],
)
def test_metadata_that_is_no_object_is_rejected(text: str) -> None:
    """The reason holds none of the text, and the encoder refuses the same event."""
    family = CATALOG.family("ui_events")
    event = events(family.name, 1)[0]
    values = [pii.record(family, event, "metadata", each) for each in ("{}", text, "{}")]
    rows = Decoder(family, sanitise=Sanitiser(family.schema, HASHER)).decode(values)
    assert rows.positions.tolist() == [0, 2]
    ((position, reason, detail),) = rows.rejections
    assert (position, reason) == (1, Reason.INVALID_JSON)
    assert detail.startswith("metadata: expected a")
    with pytest.raises(InvalidMetadataError):
        _METADATA(text.encode())


def test_the_deepest_and_the_largest_metadata_is_stored() -> None:
    """The limits of depth and size are inclusive."""
    assert _METADATA(b'{"n":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH)
    assert _METADATA(orjson.dumps({"n": [1] * (MAX_VALUES - 2)}))


def test_the_cache_is_bounded() -> None:
    """The cache stays within its limit, and a forgotten value is treated again."""
    memory = sanitise._Memory(lambda values: [value[::-1] for value in values], most_bytes=10_000)
    for first in range(0, 1_000, 50):
        values = [b"%d" % number for number in range(first, first + 60)]
        assert memory.treated(values) == [value[::-1] for value in values]
        assert memory._bytes <= 10_000


def test_an_undeclared_string_is_refused_before_anything_is_stored() -> None:
    """The sanitiser refuses a schema with an undeclared string, even if `chimera schemas check` wasn't run."""
    schema = CATALOG.family("episodes").schema
    fields = tuple(replace(field, privacy=None) if field.name == "title" else field for field in schema.fields)
    with pytest.raises(ConfigError, match=r'episodes\.v1\.avsc: title\.privacy: expected "keep", "text", '):
        Sanitiser(replace(schema, fields=fields), HASHER)


def test_a_missing_key_is_a_configuration_error() -> None:
    """The error tells how to make a key."""
    with pytest.raises(ConfigError, match=r"^CHIMERA_PRIVACY__HASH_KEY: expected a secret; .* `openssl rand -hex 32`"):
        configured_hasher(Settings().privacy)
