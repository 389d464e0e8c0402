"""ClickHouse's error codes that the worker knows, with the kind of failure that each stands for.

Numbers and names are those of ClickHouse's src/Common/ErrorCodes.cpp.
"""

from enum import IntEnum
from typing import Self

from pipeline.errors import FailureKind

_RETRY, _HALT, _DEAD_LETTER = FailureKind.RETRY, FailureKind.HALT, FailureKind.DEAD_LETTER


class Code(IntEnum):
    """Error code of the server; `kind` is its kind of failure."""

    kind: FailureKind

    def __new__(cls, number: int, kind: FailureKind) -> Self:
        """Make a member of number and kind."""
        code = int.__new__(cls, number)
        code._value_ = number
        code.kind = kind
        return code

    # Server, disk, network or Keeper is busy or unavailable for now.
    TIMEOUT_EXCEEDED = 159, _RETRY
    READONLY = 164, _RETRY
    TOO_MANY_SIMULTANEOUS_QUERIES = 202, _RETRY
    NO_FREE_CONNECTION = 203, _RETRY
    SOCKET_TIMEOUT = 209, _RETRY
    NETWORK_ERROR = 210, _RETRY
    NO_ZOOKEEPER = 225, _RETRY
    ABORTED = 236, _RETRY
    MEMORY_LIMIT_EXCEEDED = 241, _RETRY
    TABLE_IS_READ_ONLY = 242, _RETRY
    NOT_ENOUGH_SPACE = 243, _RETRY
    TOO_MANY_PARTS = 252, _RETRY
    NO_ACTIVE_REPLICAS = 254, _RETRY
    ALL_CONNECTION_TRIES_FAILED = 279, _RETRY
    TOO_FEW_LIVE_REPLICAS = 285, _RETRY
    UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE = 286, _RETRY
    REPLICA_IS_NOT_IN_QUORUM = 289, _RETRY
    UNKNOWN_STATUS_OF_INSERT = 319, _RETRY
    SYSTEM_ERROR = 425, _RETRY
    CANNOT_SCHEDULE_TASK = 439, _RETRY
    KEEPER_EXCEPTION = 999, _RETRY

    # Login, rights, tables or settings are wrong until a person changes them.
    NO_SUCH_COLUMN_IN_TABLE = 16, _HALT
    ILLEGAL_COLUMN = 44, _HALT
    UNKNOWN_IDENTIFIER = 47, _HALT
    UNKNOWN_TABLE = 60, _HALT
    UNKNOWN_DATABASE = 81, _HALT
    UNKNOWN_SETTING = 115, _HALT
    UNKNOWN_USER = 192, _HALT
    WRONG_PASSWORD = 193, _HALT
    REQUIRED_PASSWORD = 194, _HALT
    QUOTA_EXCEEDED = 201, _HALT
    ACCESS_DENIED = 497, _HALT
    AUTHENTICATION_FAILED = 516, _HALT

    # The server refuses the data.
    CANNOT_PARSE_TEXT = 6, _DEAD_LETTER
    CANNOT_PARSE_QUOTED_STRING = 26, _DEAD_LETTER
    CANNOT_PARSE_INPUT_ASSERTION_FAILED = 27, _DEAD_LETTER
    CANNOT_PARSE_DATE = 38, _DEAD_LETTER
    CANNOT_PARSE_DATETIME = 41, _DEAD_LETTER
    TYPE_MISMATCH = 53, _DEAD_LETTER
    ARGUMENT_OUT_OF_BOUND = 69, _DEAD_LETTER
    CANNOT_CONVERT_TYPE = 70, _DEAD_LETTER
    CANNOT_PARSE_NUMBER = 72, _DEAD_LETTER
    VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE = 321, _DEAD_LETTER
    CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN = 349, _DEAD_LETTER
    DECIMAL_OVERFLOW = 407, _DEAD_LETTER
    VIOLATED_CONSTRAINT = 469, _DEAD_LETTER


LOGIN_REFUSED = frozenset({Code.UNKNOWN_USER, Code.WRONG_PASSWORD, Code.REQUIRED_PASSWORD, Code.AUTHENTICATION_FAILED})
"""Codes with which the server refuses user or password."""

COLUMN_REFUSED = frozenset({Code.NO_SUCH_COLUMN_IN_TABLE, Code.ILLEGAL_COLUMN})
"""Codes with which the server refuses an insert for the names of its columns."""


def failure_kind(number: int) -> FailureKind:
    """Kind of a server error; HALT for an unknown code, so that a person looks at it."""
    try:
        return Code(number).kind  # type: ignore[call-arg] # a look-up by number, not a new member
    except ValueError:
        return FailureKind.HALT
