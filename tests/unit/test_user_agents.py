"""Many distinct user agents: the ones that differ in digits at which no definition looks are reduced once."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import settings as properties
from hypothesis import strategies as st
from ua_parser import load_lazy_builtins

from pipeline.privacy.agent_groups import AgentGroups
from pipeline.privacy.hashing import Hasher
from pipeline.privacy.named_digits import naming_patterns
from pipeline.privacy.user_agents import UserAgentReducer

_HASHER = Hasher(b"a key of the tests")
_AGENTS, _SYSTEMS, _ = load_lazy_builtins()
_PATTERNS = [*(agent.regex for agent in _AGENTS), *(system.regex for system in _SYSTEMS)]
_NAMING = [pattern for pattern in _PATTERNS if any(naming_patterns(pattern))]
_NAMED = [  # definitions name digits of these
    "Mozilla/5.0 (Windows NT 6.1; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Build/4711",
    "Mozilla/5.0 (Windows NT 10.0; rv:132.0) Gecko/20100101 Firefox/132.0",
    "Mozilla/4.0 (compatible; MSIE 7.0; Windows 98; Trident/5.0)",
    "Mozilla/5.0 (Mobile; rv:18.0) Gecko/18.0 Firefox/18.0",
    "Instagram 9.2.0 CFNetwork/672.1.14 Darwin/14.0.0",
    "Mozilla/5.0 (BB10; Touch) AppleWebKit/537.10+ Version/10.0.9.2372 Mobile Safari/537.10+",
    "Mozilla/5.0 (SymbianOS/9.2; Series60/5.0) Microsoft Outlook 16.0.4266 12345 1470.net crawler/2",
    "008/0.83 python-requests/2.31 ESPN%20Radio/2.1.3 CFNetwork/548.0.4 wget2/3",
]
_SHOWN = [  # families have digits of their own that no definition names
    "JetS3t/5777 CFNetwork/978.0.7 Darwin/18.7.0",
    "115 Browser/5777 CFNetwork/978.0.7 Darwin/18.7.0",
    "360 Secure Browser/7 CFNetwork/978.0.7 Darwin/18.7.0",
]
_FORGOTTEN = {  # definitions whose digits no other one names there, and user agents
    "PLAYSTATION 3": "Mozilla/5.0 (PLAYSTATION 3; 4.55)",
    r"Outlook-Express\/7": "Outlook-Express/7.0 (MSIE 7.0; Windows NT 5.1; Trident/4.0)",
    "(SE 2": "Mozilla/4.0 (compatible; MSIE 8.0; SE 2.X MetaSr 1.0)",
    "(Opera)/9.80": "Opera/9.80 (S60; U) Version/10.10",
}

_least_two = UserAgentReducer(_HASHER, least=2)
_alone = UserAgentReducer(_HASHER)


def _each(agents: Sequence[bytes]) -> list[bytes]:
    """Reduce each agent by itself."""
    return [_alone([agent])[0] for agent in agents]


def _varied(agent: str, rng: random.Random, count: int) -> list[bytes]:
    """Return the agent with other digits: some, many or all of them, so that named digits stay together too."""

    def other(digit: str) -> str:
        return rng.choice("0123456789") if digit.isdecimal() and rng.random() < rate else digit

    varied = list[bytes]()
    for _ in range(count):
        rate = rng.choice((0.1, 0.2, 0.5))
        varied.append("".join(map(other, agent)).encode())
    return varied


_ALPHABET = st.characters(codec="utf-8")


@given(
    st.lists(
        st.sampled_from(_PATTERNS).flatmap(lambda pattern: st.from_regex(pattern, alphabet=_ALPHABET)),
        min_size=1,
        max_size=3,
    )
)
def test_each_user_agent_is_reduced_as_if_it_were_alone(parts: list[str]) -> None:
    """What comes beside a user agent changes nothing, for matches of one definition and of several."""
    agents = _varied(" ".join(parts), random.Random(parts[0]), 40)
    assert _least_two(agents) == _each(agents)


@pytest.mark.parametrize("pattern", _NAMING)
@properties(max_examples=4)
@given(data=st.data())
def test_each_named_digit_tells_user_agents_apart(pattern: str, data: st.DataObject) -> None:
    """This holds for each definition that names a digit."""
    agent = data.draw(st.from_regex(pattern, alphabet=_ALPHABET))
    agents = _varied(agent, random.Random(agent), 40)
    assert _least_two(agents) == _each(agents)


@pytest.mark.parametrize("agent", [*_NAMED, *_SHOWN, *_FORGOTTEN.values()])
def test_digits_tell_user_agents_apart(agent: str) -> None:
    """Equal digits where a definition names one are reduced together, other ones aren't; nor are other families."""
    agents = [agent.encode(), *_varied(agent, random.Random(agent), 3000)]
    assert _least_two(agents) == _each(agents)
    agents.reverse()
    assert _least_two(agents) == _each(agents)


def test_a_group_is_reduced_once() -> None:
    """Builds of one browser are one group; other majors and systems have their own, and so has another shape."""
    read = list[bytes]()

    def reduced(agent: bytes) -> list[bytes]:
        read.append(agent)
        return _each([agent])

    groups = AgentGroups(_PATTERNS, reduced, least=3)
    agents = [
        *(f"Mozilla/5.0 (X11; Linux x86_64) Firefox/132.0 Build/{1000 + build}".encode() for build in range(500)),
        *(f"Mozilla/5.0 (X11; Linux x86_64) Firefox/133.0 Build/{1000 + build}".encode() for build in range(500)),
        *(f"Mozilla/5.0 (Windows NT 6.{minor}) Firefox/133.0".encode() for minor in (0, 1, 2) for _ in range(3)),
        b"curl/8.5.0",
    ]
    numbers, one = groups.of(agents)
    assert len(one) == len(set(numbers.tolist())) == 6
    assert [numbers[index] for index in one.tolist()] == list(range(6))
    assert len(read) < 100
    read.clear()
    groups.of(agents)
    assert not read  # it was learned


@pytest.mark.parametrize(("forgotten", "agent"), _FORGOTTEN.items())
def test_a_forgotten_definition_is_noticed(forgotten: str, agent: str) -> None:
    """The tests above fail if the digits that one definition names are forgotten."""
    reducer = UserAgentReducer(_HASHER, least=2)
    known = [pattern for pattern in _PATTERNS if forgotten not in pattern]
    assert len(known) < len(_PATTERNS)
    reducer._groups = AgentGroups(known, reducer._read, 2)
    agents = _varied(agent, random.Random(agent), 3000)
    assert reducer(agents) != _each(agents)


@pytest.mark.parametrize("agent", _SHOWN)
def test_forgotten_digits_of_families_are_noticed(agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above fail if the digits that show in what is read are forgotten."""
    reducer = UserAgentReducer(_HASHER, least=2)
    monkeypatch.setattr(AgentGroups, "_shown_digits", lambda *_: [])
    agents = _varied(agent, random.Random(agent), 3000)
    assert reducer(agents) != _each(agents)


def test_a_shape_with_many_digits_is_read_one_by_one() -> None:
    """A sender can't make the worker learn a thousand places for a few hundred user agents."""
    read = list[bytes]()
    groups = AgentGroups(_PATTERNS, read.append, least=2)
    agents = [f"Android {number}{'7' * 60}".encode() for number in range(10_000, 10_100)]
    numbers, _ = groups.of(agents)
    assert len(set(numbers.tolist())) == 100
    assert not read


@pytest.mark.parametrize(
    ("pattern", "naming"),
    [
        (r"NT 6\.1", [r"NT 1\.(?:1|[01])", r"NT (?:6|[01])\.1"]),
        ("Win(95|NT)x?", ["Win(1(?:5|[01]))x?", "Win((?:9|[01])1)x?"]),
        ("7|a", ["1"]),
        (r"a(2(?:b|c))?\d", [r"a(1(?:b|c))\d"]),
        (r"[13-5]?\w", [r"1\w"]),
        (r"[^7]x", [r"1x"]),
        (r"[0-9]{2}[\d.]+[^a]\S*?[%20-9]", []),
        ("4+?", ["(?:4|[01])+?"]),
        ("(?:7a){2,3}", ["(?:(?:7|[01])a){2,3}"]),
        ("(?P<n>7)", ["1"]),
        (r"\x37", ["1"]),
        ("a(?=7)", ["1"]),
        (r"[\w--[5-7]]", ["1"]),
        ("a{,7}", ["1"]),
    ],
)
def test_patterns_find_named_digits(pattern: str, naming: list[str]) -> None:
    """Each takes one branch with a named digit; a part that isn't known may name any."""
    assert list(naming_patterns(pattern)) == naming


def test_all_parts_of_the_definitions_are_known() -> None:
    """Otherwise user agents would be grouped by all of their digits."""
    assert "1" not in {naming for pattern in _PATTERNS for naming in naming_patterns(pattern)}
