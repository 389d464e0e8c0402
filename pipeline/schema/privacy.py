"""The `privacy` attribute of an .avsc: the declared treatment of a field's personal data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError, unknown_key_message

MAX_ENUMERATED_CHARACTERS = 64

FORMS = '"keep", "text", {"text": {"keep": pattern}}, "user_agent" or {"metadata": {"keys": {name: [values]}}}'
"""The valid declarations, for messages."""


@dataclass(frozen=True, slots=True)
class Keep:
    """The value is stored unchanged: its pattern admits nothing personal."""


@dataclass(frozen=True, slots=True)
class Text:
    """Free text: parts that look personal are replaced."""

    keep: re.Pattern[str] | None = None
    """Pattern of texts that are stored unchanged: identifiers that only look like secrets."""


@dataclass(frozen=True, slots=True)
class UserAgent:
    """A user agent: reduced to family, major version and operating system."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """A JSON object: only declared keys are kept."""

    keys: Mapping[str, frozenset[str]]
    """Kept key, at any depth, to the strings that are kept as its values."""


Treatment = Keep | Text | UserAgent | Metadata


def read_treatment(where: str, raw: Any) -> Treatment:
    """Read the treatment that an attribute declares.

    Args:
        where: file, field and attribute, for messages.
        raw: the declaration, as parsed JSON.

    Raises:
        ConfigError: no valid declaration; the message lists the valid ones.
    """
    match raw:
        case "keep":
            return Keep()
        case "text":
            return Text()
        case "user_agent":
            return UserAgent()
        case {"text": {"keep": str(pattern), **others}, **more} if not others and not more:
            try:
                return Text(re.compile(pattern))
            except re.error as error:
                raise ConfigError(f"{where}.text.keep: expected a regular expression: {error}") from None
        case {"metadata": {"keys": dict(keys), **others}, **more} if not more:
            if others:
                raise ConfigError(
                    f"{where}.metadata.{next(iter(others))}: {unknown_key_message(['keys'], str(next(iter(others))))}"
                )
            return Metadata({name: _values(f"{where}.metadata.keys.{name}", values) for name, values in keys.items()})
    raise ConfigError(f"{where}: expected {FORMS}; got {raw!r}")


def _values(where: str, values: Any) -> frozenset[str]:
    fits = isinstance(values, list) and all(
        isinstance(value, str) and len(value) <= MAX_ENUMERATED_CHARACTERS for value in values
    )
    if not fits:
        raise ConfigError(f"{where}: expected a list of strings of at most {MAX_ENUMERATED_CHARACTERS} characters")
    return frozenset(values)
