"""What can go wrong, and what follows: three kinds of failure, decided by type or code, never by message text."""

import enum


class ChimeraError(Exception):
    """A failure that is explained to the user in one line; `exit_code` is what a command then ends with."""

    exit_code = 1


class ConfigError(ChimeraError):
    """A setting, topics.yaml, a schema or a migration is wrong: names file or variable, key, what was expected."""

    exit_code = 78  # EX_CONFIG of sysexits.h


class UnavailableError(ChimeraError):
    """A broker, a database or a registry does not answer: says which and where. Worth another try."""

    exit_code = 69  # EX_UNAVAILABLE


class HaltError(ChimeraError):
    """Going on would do harm or never succeed (credentials, missing table, wrong schema): stop, acknowledge nothing."""

    exit_code = 70  # EX_SOFTWARE


class FailureKind(enum.Enum):
    """What the worker does about a failed insert."""

    RETRY = "retry"
    HALT = "halt"
    DEAD_LETTER = "dead_letter"


# Server error codes of ClickHouse (src/Common/ErrorCodes.cpp).
_RETRY_CODES = (159, 164, 202, 203, 209, 210, 225, 236, 241, 242, 243, 252, 254, 279, 285, 286, 289, 319, 425, 439, 999)
_HALT_CODES = (16, 60, 81, 115, 192, 193, 201, 497, 516)
_DEAD_LETTER_CODES = (6, 26, 27, 38, 41, 53, 69, 70, 72, 321, 349, 407, 469)
_KINDS = {
    **dict.fromkeys(_RETRY_CODES, FailureKind.RETRY),
    **dict.fromkeys(_HALT_CODES, FailureKind.HALT),
    **dict.fromkeys(_DEAD_LETTER_CODES, FailureKind.DEAD_LETTER),
}


def failure_kind(code: int) -> FailureKind:
    """Kind of a ClickHouse server error; a code nobody has classified halts, so that a person looks at it."""
    return _KINDS.get(code, FailureKind.HALT)


class Reason(enum.StrEnum):
    """Why a record was rejected. The set is closed: it labels metrics."""

    TOMBSTONE = "tombstone"  # null value
    EMPTY = "empty"  # zero bytes
    OVERSIZE = "oversize"  # more bytes than its topic takes, before compression
    UNFRAMED = "unframed"  # neither Confluent nor single-object framing
    UNKNOWN_SCHEMA = "unknown_schema"  # fingerprint or schema id that nobody knows
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
    REFUSED_BY_CLICKHOUSE = "refused_by_clickhouse"
