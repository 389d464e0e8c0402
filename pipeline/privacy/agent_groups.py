"""Groups user agents that are read the same: they differ in nothing but digits at which no definition looks.

A definition is a regular expression. Most match any digit (`[0-9]`, a word character), and some name one (`NT 6.1`).
The shape of a user agent is its text with zeros in place of all digits. Two of one shape can only be told apart where a
named digit may match. If they have the same digits there, each definition matches both in the same way, and what is
read from them differs only if it has other digits itself.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache

import numpy as np
from ua_parser_rs import UserAgentExtractor

from pipeline.columns import DictionaryColumn, Ints, Spans
from pipeline.privacy.named_digits import naming_patterns

_MOST_DIGITS = 64  # of a shape: to learn where the definitions look takes two searches a digit
_MOST_LEARNED = 1024  # shapes
_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_ZERO, _ONE = b"01"


class AgentGroups:
    """Groups of user agents; not safe for use from several threads at once.

    Args:
        definitions: regular expressions of the definitions.
        read: returns what the definitions match in a user agent, all of it: what a caller does with it later may depend
            on each digit.
        least: fewest agents of a shape for which it pays to learn where the definitions look.
    """

    def __init__(self, definitions: Sequence[str], read: Callable[[bytes], object], least: int) -> None:
        self._naming = _naming(tuple(definitions))
        self._read, self._least = read, least
        self._named = lru_cache(_MOST_LEARNED)(self._named_digits)
        self._shown = lru_cache(_MOST_LEARNED)(self._shown_digits)

    def of(self, agents: Sequence[bytes]) -> tuple[Ints, Ints]:
        """Return the number of each agent's group, and an agent of each group, by its index.

        An agent of a shape that few others have, or that has many digits, is a group of its own.
        """
        groups = _Groups(agents)
        for shape, rows in self._parts(groups.shapes, np.arange(len(agents))):
            if shape.count(b"0") > _MOST_DIGITS:
                continue
            for digits, alike in self._parts(groups.digits(rows, self._named(shape)), rows):
                groups.add(alike, self._shown(shape, digits))
        return groups.numbered()

    def _parts(self, column: DictionaryColumn, rows: Ints) -> Iterator[tuple[bytes, Ints]]:
        """Yield each value that enough rows have, and these rows."""
        counts = np.bincount(column.codes, minlength=len(column.values))
        order, stops = np.argsort(column.codes, kind="stable"), np.cumsum(counts)
        for code in np.flatnonzero(counts >= self._least).tolist():
            yield column.values[code], rows[order[stops[code] - counts[code] : stops[code]]]

    def _named_digits(self, shape: bytes) -> list[int]:
        """Return the places of the digits that a definition may name in agents of a shape."""
        digits = (place for place, octet in enumerate(shape) if octet == _ZERO)
        return [place for place in digits if self._naming.extract(_with(shape, place, _ONE).decode())]

    def _shown_digits(self, shape: bytes, digits: bytes) -> list[int]:
        """Return the places of the other digits that show in what is read, given the digits at the named places."""
        named, agent = self._named(shape), shape
        for place, digit in zip(named, digits, strict=True):
            agent = _with(agent, place, digit)
        other = (place for place, octet in enumerate(shape) if octet == _ZERO and place not in named)
        usual = self._read(agent)
        return [place for place in other if self._read(_with(agent, place, _ONE)) != usual]


@cache
def _naming(definitions: Sequence[str]) -> UserAgentExtractor:
    """Return what finds a 1 where a definition names a digit, in a text of which all other digits are zeros."""
    patterns = dict.fromkeys(pattern for definition in definitions for pattern in naming_patterns(definition))
    return UserAgentExtractor((pattern, "named", None, None, None, None) for pattern in patterns)


class _Groups:
    """Groups of some texts while they are found."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        joined, lengths = b"".join(texts), np.fromiter(map(len, texts), np.int64, len(texts))
        self._octets, self._starts = np.frombuffer(joined, np.uint8), np.cumsum(lengths) - lengths
        self.shapes = Spans.consecutive([joined.translate(_ZEROS)], lengths).encoded()
        """Shape of each text."""
        self._numbers = np.full(len(texts), -1)
        self._count = 0

    def digits(self, rows: Ints, places: Sequence[int]) -> DictionaryColumn:
        """Return the octets of each of these texts at some places."""
        if not places:
            return DictionaryColumn(np.zeros(len(rows), np.uint32), [b""])
        starts, found = self._starts[rows], np.empty((len(rows), len(places)), np.uint8)
        for number, place in enumerate(places):
            found[:, number] = self._octets[starts + place]
        return DictionaryColumn.encode(found.view(f"V{len(places)}").ravel().tolist())

    def add(self, rows: Ints, places: Sequence[int]) -> None:
        """Make a group of all of these texts that have the same octets at some places."""
        column = self.digits(rows, places)
        self._numbers[rows] = self._count + column.codes.astype(np.int64)
        self._count += len(column.values)

    def numbered(self) -> tuple[Ints, Ints]:
        """Return the number of each text's group, and a text of each group; the texts that are left are alone."""
        alone = np.flatnonzero(self._numbers < 0)
        self._numbers[alone] = self._count + np.arange(len(alone))
        one = np.empty(self._count + len(alone), np.int64)
        one[self._numbers] = np.arange(len(self._numbers))
        return self._numbers, one


def _with(text: bytes, place: int, octet: int) -> bytes:
    return text[:place] + bytes((octet,)) + text[place + 1 :]
