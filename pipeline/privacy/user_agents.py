"""Reduces user agents to family, major version and operating system, such as `Firefox 132 (Linux)`."""

import re
from functools import cache
from typing import Any

from ua_parser import load_lazy_builtins
from ua_parser.regex import Resolver

from pipeline.privacy.hashing import Hasher

_MAJOR = re.compile(r"[0-9]{1,4}")
_NAME = re.compile(r"[A-Za-z][\w .!+-]*", re.ASCII)


class UserAgentReducer:
    """Reduces user agents.

    Args:
        hasher: hashes unknown user agents.
    """

    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher
        _definitions()  # they take a sixth of a second to compile, for which the first micro-batch would wait

    def __call__(self, user_agent: bytes) -> bytes:
        """Reduce a user agent; one that ua-parser doesn't know becomes hash and length as JSON."""
        text = user_agent.decode()
        definitions, names = _definitions()
        # The extractors are asked directly: the results that ua-parser makes of their answers take as long as both.
        agent = definitions.ua.extract(text)
        if agent is None or agent.family not in names:
            return self._hasher.masked(text)  # whatever its system is
        reduced, major = agent.family, agent.major or ""
        if _MAJOR.fullmatch(major):
            reduced += f" {major}"
        system = definitions.os.extract(text)
        if system and system.family in names:
            reduced += f" ({system.family})"
        return str(reduced).encode()


@cache
def _definitions() -> tuple[Resolver, frozenset[str]]:
    """Return ua-parser's definitions, and the names that they spell out.

    Some definitions take any word before `bot` or `/1.0` for the family, so that a sender could store any text. So only
    a family whose name the definitions spell out is kept.
    """
    agents, systems, _ = load_lazy_builtins()
    matchers: list[Any] = [*agents, *systems]
    spelt = (part.replace("\\", "") for matcher in matchers for part in re.split(r"[()|]|\?:", matcher.regex))
    names = {name for name in spelt if _NAME.fullmatch(name)} | {matcher.family for matcher in matchers}
    return Resolver((agents, systems, [])), frozenset(names)
