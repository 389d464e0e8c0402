"""User agents: reduced to family, major version and operating system, such as `Firefox 132 (Linux)`."""

import re
from functools import cache
from typing import Any

from ua_parser import Domain, load_lazy_builtins
from ua_parser.regex import Resolver

from pipeline.privacy.hashing import Hasher

_DOMAINS = Domain.USER_AGENT | Domain.OS
_MAJOR = re.compile(r"[0-9]{1,4}")
_NAME = re.compile(r"[A-Za-z][\w .!+-]*", re.ASCII)


class UserAgentReducer:
    """Reduces user agents.

    Args:
        hasher: of those that nobody knows.
    """

    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher

    def __call__(self, user_agent: bytes) -> bytes:
        """What is kept; of one that no definition of ua-parser is for, hash and length as JSON."""
        text = user_agent.decode()
        resolve, names = _definitions()
        found = resolve(text, _DOMAINS)
        if found.user_agent is None or found.user_agent.family not in names:
            return self._hasher.masked(text)
        reduced, major = found.user_agent.family, found.user_agent.major or ""
        if _MAJOR.fullmatch(major):
            reduced += f" {major}"
        if found.os and found.os.family in names:
            reduced += f" ({found.os.family})"
        return reduced.encode()


@cache
def _definitions() -> tuple[Resolver, frozenset[str]]:
    """ua-parser's definitions, and every name that stands in them.

    Some definitions take any word before `bot` or `/1.0` for the family, so that whoever sends the user agent could say
    anything. A family is kept when it is a name that the definitions themselves spell out.
    """
    agents, systems, _ = load_lazy_builtins()
    matchers: list[Any] = [*agents, *systems]
    spelt = (part.replace("\\", "") for matcher in matchers for part in re.split(r"[()|]|\?:", matcher.regex))
    names = {name for name in spelt if _NAME.fullmatch(name)} | {matcher.family for matcher in matchers}
    return Resolver((agents, systems, [])), frozenset(names)
