"""Sanitised rows hold no personal data and no secrets; everything else stays."""

import hmac
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import oracle, pii
from support.events import events

from pipeline.catalog import Family, load_catalog
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.errors import ConfigError, Reason
from pipeline.privacy import sanitise
from pipeline.privacy.hashing import Hasher, configured_hasher
from pipeline.privacy.metadata import MetadataFilter
from pipeline.privacy.rules import RULES, Rule
from pipeline.privacy.sanitise import Sanitiser
from pipeline.privacy.text import sanitised
from pipeline.privacy.user_agents import UserAgentReducer
from pipeline.schema.metadata import MAX_DEPTH, MAX_VALUES, InvalidMetadataError
from pipeline.schema.privacy import Metadata

# Pieces that a hostile text may repeat.
_UNITS = (
    *("a", "a.", "@", "a@", "://", "a://", "?", "?=", "1", "1.", "1 ", "a:"),
    *("::", "ffff:", "-", "a-", "+1", "(1", "1 (1", '"', "'", "=", "x=", "~a"),
    *("°", "1°1'", "1.000,", "%2525", "&amp;", "\\u0041", "(at)", "\u200b", "\ufdfa"),
    *(
        "token",
        "token-",
        "bearer ",
        "cookie:",
        "cookie2=",
        "set-cookie2: ",
        "0xC0A80D25",
        "password=",
        "--password ",
        "secret: ",
        "sk-",
        "eyj",
        "home/./",
        "2025-01-31",
        "2001:db8",
        "10,20,",
        "home/",
        "home/a a a a ",
        "ip-",
        "eyj.",
        "ab12 ",
        "geo:",
        "sk-1",
        "-----begin ",
    ),
    *("-----begin private key-----", "-----BEGIN A PRIVATE "),
)
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
    "text",
    [
        "rate limit reached, retry after 20 s",
        "Quantized Nights, part 12",
        "A Cache Miss in Public (draft)",
        "50 % größer als erlaubt & mehr",
        "posts/banterpacks/ep-001.md",
        "https://muse-chimera-41-7qmx2b.vercel.app",
        "https://example.org/docs/intro",
        "llama3.1:8b-instruct-q4_K_M",
        "claude-3-5-sonnet-20241022",
        "meta-llama/Llama-3.2-90B-Vision-Instruct",
        "mixtral-8x7b-instruct-v0.1-q4_K_M",
        "UpstreamConnectionResetError in std::vector, 2026-01-31 12:34:56.789",
        "run 550e8400-e29b-41d4-a716-446655440000: basic authentication failed, max_tokens: 4096",
        "/usr/lib/python3.11/site-packages/fastavro/_read.py, line 12",
        "run 550e8400-e29b-41d4-a716-446655440000 650e8400-e29b-41d4-a716-446655440000 7",
        "gpt-4.1-2025-04-14",
        "o1-2024-12-17",
        "banterhearts-2025-01-31-120000",
        "deployments/2025/01/31/001",
        "sk-learn-2024",
        "sk-hynix-bench1",
        "hf_transformers_bench",
        "npm_install_run",
        "sg.internal.service.host.name",
        "lodash@4.17.21, @types/node@20.1.0, actions/checkout@v4",
        "a::b, face::bed, c10::Error",
        "10:20::30",
        "The Secret: A Story",
        "author: Chimera",
        "Authentication: failed",
        "session: closed",
        "token_count=99",
        "content/home/index.md",
        "content/users/guide.md",
        "corr 0.812,0.931",
        "Correlation 0.8213 0.9312",
        "latency 0.123456789 s",
        "17179869184 bytes",
        "1,234,567,890",
        "https://example.org:8443/@scope/pkg",
        "",
    ],
)
def test_text_without_personal_data_is_unchanged(text: str) -> None:
    """Names of models, paths, titles and errors are stored as they were written."""
    assert sanitised([text]) == [text]


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("no mailbox alice@example.com at 203.0.113.7", "no mailbox <email> at <ip>"),
        ("open /home/alice/x: denied", "open /home/<user>/x: denied"),
        ("GET https://bob:pw@example.org/a?b=c 404", "GET https://<credentials>@example.org/a?<query> 404"),
        ("call +49 151 23456789", "call +<number>"),
        ("Authorization: Bearer abcdef123", "Authorization: <secret>"),
        ("key AKIAIOSFODNN7EXAMPLE is void", "key <token> is void"),
        ("%61lice%40example.com", "<email>"),
        ("see https://chimera-9f8g7h6j5k4l3m2n1.vercel.app", "see https://<token>.vercel.app"),
        ('{"password":"x","user":"y"}', '{"password":<secret>,"user":"y"}'),
        ("alice@example.com%00\\u0000\\x00\\u{0}!", "<email>!"),
    ],
)
def test_a_placeholder_replaces_a_personal_part(text: str, stored: str) -> None:
    """A placeholder replaces the personal part; the rest of the text stays readable."""
    assert sanitised([text]) == [stored]


@given(
    st.lists(
        st.text()
        | st.sampled_from([secret.text for secret in pii.CORPUS])
        | st.text("a1@.:/-_ %&\n?=+")
        | st.lists(st.sampled_from(_UNITS), min_size=1, max_size=5).map("".join)
    )
)
def test_texts_are_treated_independently(texts: list[str]) -> None:
    """The texts beside a text change nothing, and treating a treated text changes nothing."""
    assert sanitised(texts) == [sanitised([text])[0] for text in texts]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.needles[:1]))
def test_no_rule_needs_a_digit_other_than_zero(rule: Rule) -> None:
    """Rules match zeros and classes of digits only, because the search replaces all digits by zeros."""
    asked = re.sub(r"\\.|\[(?:\\.|[^\]\\])*\]|\{\d*,?\d*\}", "", rule.pattern.pattern)
    assert not re.search("[1-9]", asked)


def _seconds(treat: Callable[[str], object], unit: str, size: int) -> float:
    text = unit * (size // len(unit.encode()))
    return min(_taken(treat, text) for _ in range(3))


def _taken(treat: Callable[[str], object], text: str) -> float:
    began = time.process_time()
    treat(text)
    return time.process_time() - began


def _is_linear(treat: Callable[[str], object], unit: str) -> bool:
    """True if 8 KiB take less than 20 ms, or less than three times the time of 4 KiB."""
    whole = _seconds(treat, unit, 8192)
    return whole < 0.02 or whole < 3 * _seconds(treat, unit, 4096)


@pytest.mark.parametrize("unit", _UNITS, ids=repr)
def test_a_hostile_text_is_treated_in_bounded_time(unit: str) -> None:
    """Treating 8 KiB of any repeated text takes linear time."""
    assert _is_linear(lambda text: sanitised([text]), unit)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.needles[:1]))
def test_each_rule_takes_linear_time(rule: Rule) -> None:
    """Each rule takes linear time for repetitions of its own beginning."""
    heads = rule.needles or ("ab12", "1", "1234567 x", "aA1")
    tails = ("", "a", "1", " ", "-", "_", "=", ":", ": ", "/", "a/", "@", "a.", '"', "(", "://", "\\", "--")
    units = [head + tail for head in heads for tail in tails]
    assert [unit for unit in units if not _is_linear(lambda text: rule.applied(text, text.lower()), unit)] == []


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
    assert UserAgentReducer(HASHER)(user_agent.encode()).decode() == stored


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1000])
def test_hashes_are_hmac(size: int) -> None:
    """Other tools compute the same hashes with the same key."""
    key = b"k" * size
    for text in ("", "alice@example.com", "größer" * 100):
        assert Hasher(key).digest(text) == hmac.digest(key, text.encode(), "sha256").hex()


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
