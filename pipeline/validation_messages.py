"""Messages for the problems that pydantic finds in settings, schemas and topics.yaml."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

_EXPECTED = {
    "missing": "a value",
    "greater_than": "more than {gt:.12g}",
    "greater_than_equal": "at least {ge:.12g}",
    "less_than": "less than {lt:.12g}",
    "less_than_equal": "at most {le:.12g}",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_unicode": "text in UTF-8",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} character",
    "too_short": "at least {min_length} characters",
    "string_pattern_mismatch": "text that matches {pattern}",
    "literal_error": "{expected}",
    "model_type": "a mapping",
    "value_error": "{error}",
}


def validation_message(problem: Mapping[str, Any]) -> str:
    """Return the message for one entry of pydantic's `errors()`: it says which value was expected.

    A validator of ours raises a ValueError with the words that come after `expected`.
    """
    wording = _EXPECTED.get(problem["type"])
    return f"expected {wording.format(**problem.get('ctx', {}))}" if wording else problem["msg"]


def unknown_key_message(known: Collection[str], key: str) -> str:
    """Return the message for an unknown key: the one that it is likely meant for, and all known ones."""
    begun = [name for name in known if key.lower().startswith(name.lower())]  # `maximum` for `max`
    close = sorted(begun, key=len, reverse=True) or difflib.get_close_matches(key.lower(), known, n=1)
    meant = f", perhaps {close[0]} is meant" if close else ""
    return f"unknown key{meant}; expected {', '.join(known)}"
