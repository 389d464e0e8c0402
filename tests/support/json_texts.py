"""Hypothesis strategies for metadata: JSON in every form that a library writes it, and damaged JSON."""

import json
from typing import Any

from hypothesis import strategies as st

from support.avro_cases import damaged

KEYS = {"kind": frozenset({"chat", "größer", ""}), "n": frozenset[str](), "größe": frozenset({"chat"})}
"""Declared keys, and the strings that they keep."""

_BLANKS = st.sampled_from(["", "", "", " ", "\n", "\t \r", "\0", "\u00a0"])
_WORDS = st.sampled_from([*KEYS, "chat", "größer", "chat ", "sha256:", "o", "p", "'", "{[{[", "x" * 56, "😀" * 64])
_STRINGS = st.builds(
    lambda text, escaped: json.dumps(text, ensure_ascii=escaped), _WORDS | st.text(max_size=12), st.booleans()
) | st.text(max_size=6).map(lambda text: f'"{text}"')
_NUMBERS = (
    st.from_regex(r"-?(0|[1-9]\d{0,7})", fullmatch=True)
    | st.from_regex(r"-?(0|[1-9][0-9]{0,6})\.[0-9]{1,4}", fullmatch=True)
    | st.from_regex(r"-?[0-9]{0,20}(\.[0-9]{0,17})?([eE][+-]?[0-9]{0,3})?", fullmatch=True)
    | st.integers(-(10**6) - 2, 10**6 + 2).map(str)
    | st.integers().map(str)
    | st.floats().map(repr)
    | st.builds(lambda number, places: repr(round(number, places)), st.floats(-2e6, 2e6), st.integers(0, 9))
)
_LEAVES = st.sampled_from(["true", "false", "null", "tru", "nulL", "NaN", ""]) | _NUMBERS | _NUMBERS | _STRINGS


def _inside(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    spaced = st.builds("{}{}{}".format, _BLANKS, values, _BLANKS)
    items = st.lists(spaced, max_size=5).map(",".join).map("[{}]".format)
    return items | _objects(spaced)


def _objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.builds("{}{}{}:{}".format, _BLANKS, _STRINGS, _BLANKS, values)
    joined = st.builds(
        lambda each, comma: comma.join(each), st.lists(members, max_size=6), st.sampled_from([","] * 9 + [",,"])
    )
    return joined.map("{{{}}}".format)


_VALUES = st.recursive(_LEAVES, _inside, max_leaves=12)
_USUAL = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.sampled_from([0.5, -1.25, 52.520008]) | _WORDS,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(_WORDS, values, max_size=4),
    max_leaves=10,
)


def _written(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


USUAL = st.dictionaries(_WORDS | st.text("ab", max_size=3), _USUAL, max_size=8).map(_written)
"""Objects as most producers write them."""
_SOME = st.builds("{}{}{}".format, _BLANKS, _objects(_VALUES), _BLANKS).map(lambda text: text.encode(errors="replace"))
_LONG = st.builds(lambda text, times: b'{"n":[' + b",".join([text] * times) + b"]}", USUAL, st.integers(1, 400))
TEXTS = USUAL | _SOME | _SOME | _LONG | USUAL.flatmap(damaged) | _SOME.flatmap(damaged) | st.binary(max_size=20)
"""Any texts: objects of every form, long ones, damaged ones, and bytes."""
