"""Reduces user agents to family, major version and operating system, such as `Firefox 132 (Linux)`."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from ua_parser import load_lazy_builtins
from ua_parser.regex import Resolver

from pipeline.privacy.agent_groups import AgentGroups
from pipeline.privacy.hashing import Hasher

_LEAST = 256  # agents of a shape; with fewer, to learn where the definitions look takes longer than to read all
_MAJOR = re.compile(r"[0-9]{1,4}")
_NAME = re.compile(r"[A-Za-z][\w .!+-]*", re.ASCII)


class UserAgentReducer:
    """Reduces user agents; not safe for use from several threads at once.

    Args:
        hasher: hashes unknown user agents.
        least: fewest user agents that may be reduced together, if they differ only in digits at which no definition
            looks.
    """

    def __init__(self, hasher: Hasher, least: int = _LEAST) -> None:
        self._hasher, self._least = hasher, least
        self._definitions = _definitions()  # they take a sixth of a second to compile: the first micro-batch would wait
        self._groups: AgentGroups | None = None  # a tenth of a second, but few workers ever need it

    def __call__(self, user_agents: Sequence[bytes]) -> list[bytes]:
        """Reduce user agents; one that ua-parser doesn't know becomes hash and length as JSON."""
        if len(user_agents) < self._least:
            return [self._name(agent) or self._masked(agent) for agent in user_agents]
        if self._groups is None:
            self._groups = AgentGroups(self._definitions.patterns, self._read, self._least)
        numbers, one = self._groups.of(user_agents)
        names = [self._name(user_agents[index]) for index in one.tolist()]
        found = map(names.__getitem__, numbers.tolist())
        return [name or self._masked(agent) for name, agent in zip(found, user_agents, strict=True)]

    def _read(self, user_agent: bytes) -> tuple[str | None, ...]:
        """Return all matches of the definitions that a name may be made of."""
        text = user_agent.decode()
        agent, system = self._definitions.resolver.ua.extract(text), self._definitions.resolver.os.extract(text)
        of_agent = (agent.family, agent.major) if agent else ()
        return (*of_agent, system.family if system else None)

    def _name(self, user_agent: bytes) -> bytes | None:
        """Return the reduced form of a user agent; None if ua-parser doesn't know it."""
        text, (resolver, names, _) = user_agent.decode(), self._definitions
        # The extractors are asked directly: the results that ua-parser makes of their answers take as long as both.
        agent = resolver.ua.extract(text)
        if agent is None or agent.family not in names:
            return None  # whatever its system is
        major = f" {agent.major}" if _MAJOR.fullmatch(agent.major or "") else ""
        system = resolver.os.extract(text)
        return f"{agent.family}{major}{f' ({system.family})' if system and system.family in names else ''}".encode()

    def _masked(self, user_agent: bytes) -> bytes:
        return self._hasher.masked(user_agent.decode())


class _Definitions(NamedTuple):
    """ua-parser's definitions."""

    resolver: Resolver
    names: frozenset[str]
    """Families that they spell out.

    Some definitions take any word before `bot` or `/1.0` for the family, so that a sender could store any text. So only
    a family whose name the definitions spell out is kept.
    """
    patterns: tuple[str, ...]
    """The regular expressions."""


@cache
def _definitions() -> _Definitions:
    agents, systems, _ = load_lazy_builtins()
    matchers: list[Any] = [*agents, *systems]
    patterns = tuple(matcher.regex for matcher in matchers)
    spelt = (part.replace("\\", "") for pattern in patterns for part in re.split(r"[()|]|\?:", pattern))
    names = {name for name in spelt if _NAME.fullmatch(name)} | {matcher.family for matcher in matchers}
    return _Definitions(Resolver((agents, systems, [])), frozenset(names), patterns)
