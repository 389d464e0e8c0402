"""Exceptions of the pipeline, their recurring messages, kinds of failure, and reasons of rejections.

Type or code decides the kind of a failure, never the text of its message.
"""

import difflib
import enum
from collections.abc import Collection, Mapping
from typing import Any

# Problems that pydantic finds in settings, schemas and topics.yaml.
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


class ChimeraError(Exception):
    """A failure whose message explains it to the user in one line; a command ends with `exit_code`."""

    exit_code = 1


class ConfigError(ChimeraError):
    """A setting, topics.yaml, a schema or a migration is wrong.

    The message names file or variable, the key, and the expected value.
    """

    exit_code = 78  # EX_CONFIG of sysexits.h


class UnavailableError(ChimeraError):
    """A broker, a database or a registry doesn't answer; another attempt may succeed. The message names its address."""

    exit_code = 69  # EX_UNAVAILABLE


class HaltError(ChimeraError):
    """Going on would do harm or never succeed: wrong login, missing table, wrong schema. Acknowledge nothing more."""

    exit_code = 70  # EX_SOFTWARE


class UnclearError(HaltError):
    """A failure that may pass or may need a person, such as an answer that isn't one: try again for a while."""


def damaged_log(topic: str, partition: int, damage: str, way_out: str) -> HaltError:
    """Return the error for a batch of Kafka's log that can't be read.

    Args:
        topic: name of the topic.
        partition: its number.
        damage: offsets of the batch, and its fault.
        way_out: how to go on without the batch.
    """
    return HaltError(
        f"{topic}-{partition}: Kafka's log is damaged: {damage}; restore the partition from another replica, or "
        f"{way_out}"
    )


def wrong_checksum(batch: range) -> str:
    """Return the fault of a batch with these offsets."""
    return f"the checksum of the batch with offsets {batch.start} to {batch.stop - 1} is wrong"


def unreadable_batch(batch: range, fault: str) -> str:
    """Return the fault of a batch with these offsets whose checksum is right."""
    return f"the batch with offsets {batch.start} to {batch.stop - 1} can't be read: {fault}"


def way_past(batch: range, *, behind_all: bool) -> str:
    """Return the way to have a group go on without a batch with these offsets.

    Args:
        batch: offsets of the batch.
        behind_all: true if all records before it are stored; if not, the group's next offset leaves some of them out.
    """
    way = f"set the group's offset to {batch.stop} to go on without these records"
    return (
        way if behind_all else f"{way}, then run `chimera replay`: it stores those before them that aren't stored yet"
    )


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


class FailureKind(enum.Enum):
    """Kind of a failed step, which decides what the worker does."""

    RETRY = "retry"  # run the same step again
    HALT = "halt"  # stop the worker
    DEAD_LETTER = "dead_letter"  # ClickHouse refuses the data: find the refused rows, and reject them


class Reason(enum.StrEnum):
    """Reason why a record is rejected. The set is closed, because it labels metrics."""

    TOMBSTONE = "tombstone"  # null value
    EMPTY = "empty"  # zero bytes
    OVERSIZE = "oversize"  # more bytes than its topic accepts, before compression
    UNFRAMED = "unframed"  # neither Confluent nor single-object framing
    UNKNOWN_SCHEMA = "unknown_schema"  # unknown fingerprint or schema id
    WRONG_SCHEMA = "wrong_schema"  # a known schema, but it can't be resolved to the family's newest
    MALFORMED = "malformed"  # bytes that aren't Avro of that schema
    TRUNCATED = "truncated"  # the value ends inside a field
    TRAILING_BYTES = "trailing_bytes"  # the value goes on after the last field
    INVALID_UTF8 = "invalid_utf8"
    NUL_BYTE = "nul_byte"  # in a text
    INVALID_UUID = "invalid_uuid"
    INVALID_JSON = "invalid_json"  # no JSON object, too deep, or with too many values
    NOT_FINITE = "not_finite"  # NaN or an infinity
    OUT_OF_BOUNDS = "out_of_bounds"
    TOO_LONG = "too_long"
    NOT_IN_SET = "not_in_set"
    PATTERN_MISMATCH = "pattern_mismatch"
    EXPIRED = "expired"  # of a day that the table's TTL has expired
    REFUSED_BY_CLICKHOUSE = "refused_by_clickhouse"
