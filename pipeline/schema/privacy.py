"""What a schema declares of a field's privacy: the `privacy` attribute of an .avsc."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError
from pipeline.validation_messages import unknown_key_message

MAX_ENUMERATED_CHARACTERS = 64

FORMS = '"keep", "text", {"text": {"keep": pattern}}, "user_agent" or {"metadata": {"keys": {name: [values]}}}'
"""What can be declared, for messages."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Stored as it is: its pattern lets nothing personal through."""


@dataclass(frozen=True, slots=True)
class Text:
    """Free text: what looks personal is replaced."""

    keep: re.Pattern[str] | None = None
    """Texts that are stored as they are: identifiers that look like secrets and are none."""


@dataclass(frozen=True, slots=True)
class UserAgent:
    """Reduced to family, major version and operating system."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """A JSON object of which only declared keys are kept."""

    keys: Mapping[str, frozenset[str]]
    """Names that are kept, wherever they stand, with the strings that are kept as their values."""


Treatment = Keep | Text | UserAgent | Metadata


def read_treatment(where: str, raw: Any) -> Treatment:
    """The treatment that an attribute declares.

    Args:
        where: file, field and attribute, for messages.
        raw: what stands there.

    Raises:
        ConfigError: it isn't one; says what was expected.
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
                raise ConfigError(f"{where}.metadata.{next(iter(others))}: {unknown_key_message(['keys'])}")
            return Metadata({name: _values(f"{where}.metadata.keys.{name}", values) for name, values in keys.items()})
    raise ConfigError(f"{where}: expected {FORMS}; got {raw!r}")


def _values(where: str, values: Any) -> frozenset[str]:
    fits = isinstance(values, list) and all(
        isinstance(value, str) and len(value) <= MAX_ENUMERATED_CHARACTERS for value in values
    )
    if not fits:
        raise ConfigError(f"{where}: expected a list of strings of at most {MAX_ENUMERATED_CHARACTERS} characters")
    return frozenset(values)
