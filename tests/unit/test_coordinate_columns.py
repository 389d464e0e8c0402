"""Coordinates of rows as columns, and the times that bound a look-up."""

from base64 import b64encode, urlsafe_b64encode
from uuid import UUID

import numpy as np
import pytest
from support.partitions import partition_of, records_at

from pipeline.clickhouse.coordinates import Source, within

_ID = UUID("fbff7e3e-8e69-434b-969b-49f4683db1ff")


def test_an_id_is_read_in_both_alphabets() -> None:
    """Kafka's clients write + and / or - and _."""
    plain, safe = (encode(_ID.bytes).decode().rstrip("=") for encode in (b64encode, urlsafe_b64encode))
    assert plain != safe
    assert Source.of(plain, 3) == Source.of(safe, 3) == Source(_ID, 3)


@pytest.mark.parametrize(
    "text", ["", "id", "Kq3mXo5pQ0uWm0n0aD2x7", "Kq3mXo5pQ0uWm0n0aD2x7AAA", "Kq3mXo5pQ0uWm0n0 D2x7A"]
)
def test_another_text_is_no_id(text: str) -> None:
    """It would name rows of no topic."""
    with pytest.raises(ValueError, match=r".+"):
        Source.of(text, 0)


def test_columns_have_the_forms_that_the_sink_writes() -> None:
    """Topic id and partition are constants, offsets may have gaps and be large."""
    columns = Source(_ID, 7).columns(np.array([5, 9, 2**40]))
    assert [bytes(value) for value in np.asarray(columns["_topic_id"])] == [_ID.bytes] * 3
    assert np.asarray(columns["_partition"]).tolist() == [7, 7, 7]
    assert np.asarray(columns["_offset"]).tolist() == [5, 9, 2**40]


@pytest.mark.parametrize("offsets", [[4], [4, 5, 6], [4, 6, 9], [4, 5, 9]])
def test_a_micro_batch_has_the_offsets_of_its_records(offsets: list[int]) -> None:
    """Also where the log has gaps, as compaction and markers leave them."""
    owner = partition_of(offset=offsets[0])
    owner.add(records_at(offsets), 0.0)
    (batch,) = owner.cut(0.0, hurry=True)
    assert batch.offsets.tolist() == offsets


def test_the_widest_gaps_between_times_are_left_out() -> None:
    """Times of one minute are one interval; there are never more than 32."""
    assert within(np.array([5, 59_000, 118_000])) == (
        "(ts BETWEEN fromUnixTimestamp64Milli(5, 'UTC') AND fromUnixTimestamp64Milli(118000, 'UTC'))"
    )
    assert within(np.array([90_000_000, 5])).count("BETWEEN") == 2
    assert within(np.arange(1000) * 86_400_000).count("BETWEEN") == 32
