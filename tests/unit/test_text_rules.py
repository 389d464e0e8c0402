"""Rules of text: what they replace and leave, and the time they take. How rows are decoded is nothing to them."""

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import pii

from pipeline.privacy.rules import RULES, Rule
from pipeline.privacy.text import sanitised

pytestmark = pytest.mark.untraced  # its bounds are for the rules alone

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
    began = time.thread_time()
    treat(text)
    return time.thread_time() - began


def _is_linear(treat: Callable[[str], object], unit: str) -> bool:
    """True if 8 KiB take less than 20 ms, or less than eight times the time of 2 KiB, in one of three trials.

    Linear is four times and quadratic sixteen times: a neighbour may double either.
    """

    def is_linear() -> bool:
        whole = _seconds(treat, unit, 8192)
        return whole < 0.02 or whole < 8 * _seconds(treat, unit, 2048)

    return any(is_linear() for _ in range(3))  # neighbours share caches and pipelines


def test_a_quadratic_rule_is_noticed() -> None:
    """A search that begins again at each of many characters isn't linear."""
    assert not _is_linear(re.compile("a*b").search, "a")


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
