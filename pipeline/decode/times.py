"""Compares event times with record timestamps: a producer's wrong clock could create a table partition for each day."""

from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.columns import Ints, NullableColumn, Rows, Verdicts
from pipeline.config import ValidationSettings
from pipeline.errors import Reason
from pipeline.schema.fields import Field

_PER_MS = {"timestamp-millis": 1, "timestamp-micros": 1000}
_MOST_MS = 2**62  # a timestamp may be any 64-bit number; clipped to this, differences fit 64 bits


def check_times(
    rows: Rows, fields: Iterable[Field], timestamps: Sequence[int] | Ints, validation: ValidationSettings
) -> Rows:
    """Reject rows with a time too far from their record's timestamp.

    Args:
        rows: valid rows of a micro-batch.
        fields: the fields of their schema.
        timestamps: Kafka timestamps of all records of the micro-batch, ms.
        validation: the limits.
    """
    written = np.asarray(timestamps, np.int64)[rows.positions].clip(-_MOST_MS, _MOST_MS)
    verdicts = Verdicts(len(rows))
    for field in fields:
        if field.logical_type not in _PER_MS:
            continue
        column, present = rows.columns[field.name], np.ones(len(rows), np.bool_)
        if isinstance(column, NullableColumn):
            present = column.present
            column = column.values
        ahead_ms = np.asarray(column) // _PER_MS[field.logical_type] - written
        ahead, behind = validation.max_ahead_seconds, validation.max_behind_seconds
        too_far = (ahead_ms > ahead * 1000) & present
        verdicts.fail(too_far, Reason.OUT_OF_BOUNDS, f"{field.name}: over {ahead:g} s later than its record")
        if behind is not None:
            too_far = (-ahead_ms > behind * 1000) & present
            verdicts.fail(too_far, Reason.OUT_OF_BOUNDS, f"{field.name}: over {behind:g} s before its record")
    return rows.passed(verdicts)
