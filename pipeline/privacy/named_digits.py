r"""Patterns that find where a regular expression names a digit, such as the 6 and the 1 of `NT 6\.1`."""

import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import NamedTuple

_TOKEN = re.compile(
    r"""
    \\[dDwWsSbB\W]                              # a class, or an escaped character
    | \[\^?(?:\\[dDwWsS\W]|-(?!-)|[^]\\[&~-])+\]  # a set
    | (?:[*+?]|\{\d+(?:,\d*)?\})\??             # a quantifier
    | \((?:\?:|(?!\?))                          # the beginning of a group
    | [^\\{}[*+?(]                              # any other character
    """,
    re.VERBOSE | re.DOTALL,
)
_QUANTIFIER = re.compile(r"[*+?{]")
_DIGITS = "0123456789"
_ONCE = ("", "?", "??")
_ANY_ONE = "1"


class _Item(NamedTuple):
    """A part of a pattern: a token, or a group with its branches."""

    token: str
    """Of a group, its beginning."""
    branches: "_Branches | None"
    quantifier: str


_Branches = list[list[_Item]]


def naming_patterns(pattern: str) -> Iterator[str]:
    """Yield patterns that find the digits which a pattern names.

    Take a text in which the pattern names a digit at some place. Put a 1 there, and zeros in place of all other digits:
    one of the patterns finds a match. They may find one in more texts: if a named digit is repeated, or if the pattern
    has parts that aren't known here.
    """
    tokens = _TOKEN.findall(pattern)
    if "".join(tokens) != pattern:
        return iter(_ANY_ONE)
    if not any(map(_names_a_digit, tokens)):
        return iter(())
    left = tokens[::-1]
    branches = _branches(left)
    return iter(_ANY_ONE) if left else _naming(branches)


def _branches(left: list[str]) -> _Branches:
    """Read the tokens up to the end of a group; the next one is the last of the list."""
    found: _Branches = [[]]
    while left and left[-1] != ")":
        part, inner = left.pop(), None
        if part == "|":
            found.append([])
            continue
        if part.startswith("("):
            inner = _branches(left)
            del left[-1:]
        quantifier = left.pop() if left and _QUANTIFIER.match(left[-1]) else ""
        found[-1].append(_Item(part, inner, quantifier))
    return found


def _naming(branches: _Branches) -> Iterator[str]:
    """Yield the patterns for the digits that some branches name; each takes only the branch that has the digit."""
    for branch in branches:
        named = [list(_named(item)) for item in branch]
        loose = [_loose(item) for item in branch] if any(named) else []
        for place, patterns in enumerate(named):
            for pattern in patterns:
                yield "".join((*loose[:place], pattern, *loose[place + 1 :]))


def _named(item: _Item) -> Iterator[str]:
    if item.branches is None:
        if _names_a_digit(item.token):
            yield _ANY_ONE if item.quantifier in _ONCE else _loose(item)
    elif item.quantifier in _ONCE:
        yield from (f"{item.token}{named})" for named in _naming(item.branches))
    elif any(_names_a_digit(inner.token) for inner in _tokens(item.branches)):
        yield _loose(item)


@cache
def _names_a_digit(token: str) -> bool:
    """Tell whether a token matches some digits, but not all."""
    return len({bool(re.fullmatch(token, digit)) for digit in _DIGITS}) > 1 if token[0] == "[" else token.isdigit()


def _tokens(branches: _Branches) -> Iterator[_Item]:
    for item in chain.from_iterable(branches):
        yield from (item,) if item.branches is None else _tokens(item.branches)


def _loose(item: _Item) -> str:
    """Return the item as a pattern in which a named digit matches a 0 and a 1 too."""
    if item.branches is not None:
        inner = "|".join("".join(map(_loose, branch)) for branch in item.branches)
        return f"{item.token}{inner}){item.quantifier}"
    return f"(?:{item.token}|[01]){item.quantifier}" if _names_a_digit(item.token) else item.token + item.quantifier
