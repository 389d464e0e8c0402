"""Metadata of a committed offset is read back as it was written, or refused."""

import zlib
from contextlib import suppress
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import HaltError
from pipeline.transport.commit_metadata import MOST_CLOSINGS, Closing, JointInsert, Ranges, parse

TOPIC_ID = "Kq3mXo5pQ0uWm0n0aD2x7A"
OFFSET = 32_000
WHERE = "group chimera, chimera.ui_events-3"
MOST_IN_FLIGHT = 64  # as many as a worker may be set to
GREATEST_OFFSET = 2**63 - 1

ENDS = st.lists(st.integers(0, 10**6), max_size=MOST_IN_FLIGHT).map(
    lambda sizes: tuple(offset - 1 for offset in accumulate((size + 1 for size in sizes), initial=OFFSET))[1:]
)

CLOSINGS = st.dictionaries(st.integers(0, 2**63), st.integers(-1, 10**7), max_size=MOST_CLOSINGS).map(
    lambda hours: tuple(Closing(offset, hours[offset]) for offset in sorted(hours))
)
JOINT = JointInsert("9f86d081884c7d65", 496_812)
JOINT_TEXT = "9f86d081884c7d65@496812"
CLOSED = (Closing(32_000, 496_812), Closing(41_000, 496_813))


def _parse(metadata: str, offset: int = OFFSET) -> Ranges | None:
    return parse(metadata, WHERE, offset)


def _checked(body: str) -> str:
    """Return metadata with the right checksum."""
    return f"{body} {zlib.crc32(body.encode()):08x}"


@given(ends=ENDS, closings=CLOSINGS, joint_insert=st.none() | st.just(JOINT))
def test_ranges_come_back_as_they_were_committed(
    ends: tuple[int, ...], closings: tuple[Closing, ...], joint_insert: JointInsert | None
) -> None:
    """Any number of ranges and closings survives, including none, with a joint insert and without."""
    ranges = Ranges(TOPIC_ID, ends, closings, joint_insert)
    assert _parse(str(ranges)) == ranges


def test_the_form_is_the_documented_one() -> None:
    """It is version, topic id, ends, what else there is, and CRC-32; later versions have to read it."""
    assert str(Ranges(TOPIC_ID, (41999, 61999))) == f"1 {TOPIC_ID} 41999,61999 e225608f"
    assert str(Ranges(TOPIC_ID)) == f"1 {TOPIC_ID} - 83cdc7c5"
    closed = Ranges(TOPIC_ID, (41999, 61999), CLOSED[:1])
    assert str(closed) == f"2 {TOPIC_ID} 41999,61999 32000@496812 cbdab01c"
    assert str(Ranges(TOPIC_ID, (), CLOSED)).startswith(f"2 {TOPIC_ID} - 32000@496812,41000@496813 ")
    assert str(Ranges(TOPIC_ID, (41999, 61999), (), JOINT)) == f"3 {TOPIC_ID} 41999,61999 - {JOINT_TEXT} 1af2e7c8"
    assert str(Ranges(TOPIC_ID, (), CLOSED[:1], JOINT)).startswith(f"3 {TOPIC_ID} - 32000@496812 {JOINT_TEXT} ")


def test_as_many_ranges_as_may_be_in_flight_fit() -> None:
    """Kafka accepts 4,096 bytes beside an offset; the longest metadata is shorter, with all else."""
    ends = tuple(range(GREATEST_OFFSET - MOST_IN_FLIGHT, GREATEST_OFFSET))
    assert len(str(Ranges(TOPIC_ID, ends))) < 2048
    last_hour = (2**63 - 1) // 3_600_000
    closings = tuple(Closing(GREATEST_OFFSET - left, last_hour) for left in reversed(range(MOST_CLOSINGS)))
    assert len(str(Ranges(TOPIC_ID, ends, closings, JOINT))) < 4096


def test_more_than_fits_is_never_committed() -> None:
    """Longer metadata is refused, because a part of it would be other ranges."""
    with pytest.raises(AssertionError):
        str(Ranges(TOPIC_ID, tuple(range(GREATEST_OFFSET - 210, GREATEST_OFFSET))))


def test_no_metadata_is_no_ranges() -> None:
    """An offset that another program committed, or a person, has no known ranges in flight."""
    assert _parse("") is None


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        pytest.param(
            _checked(f"4 {TOPIC_ID} 41999"), "metadata of version '4', expected 1, 2 or 3", id="later-version"
        ),
        pytest.param("checkpoint by another program", "metadata of version 'checkpoint'", id="of-another-program"),
        pytest.param("x" * 4096, f"metadata of version '{'x' * 20}', expected 1, 2 or 3", id="very-long"),
        pytest.param(_checked(f"1 {TOPIC_ID} 41999,41999"), "damaged", id="ends-not-ascending"),
        pytest.param(_checked(f"1 {TOPIC_ID} 61999,41999"), "damaged", id="ends-descending"),
        pytest.param(_checked(f"1 {TOPIC_ID} 31999"), "damaged", id="end-before-the-offset"),
        pytest.param(_checked(f"1 {TOPIC_ID} "), "damaged", id="ends-missing"),
        pytest.param(_checked(f"1 {TOPIC_ID} 41999,"), "damaged", id="end-missing"),
        pytest.param(_checked(f"1 {TOPIC_ID} 41999 61999"), "damaged", id="too-many-parts"),
        pytest.param(f"1 {TOPIC_ID} 41999 00000000", "damaged", id="wrong-checksum"),
        pytest.param(_checked(f"2 {TOPIC_ID} 41999"), "damaged", id="closings-missing"),
        pytest.param(_checked(f"2 {TOPIC_ID} 41999 "), "damaged", id="closings-empty"),
        pytest.param(_checked(f"1 {TOPIC_ID} 41999 5@7"), "damaged", id="closings-in-version-1"),
        pytest.param(_checked(f"2 {TOPIC_ID} 41999 5@7 6@7"), "damaged", id="closings-twice"),
        pytest.param(_checked(f"2 {TOPIC_ID} 41999 5"), "damaged", id="closing-without-hour"),
        pytest.param(_checked(f"2 {TOPIC_ID} 41999 5@7@9"), "damaged", id="closing-with-more"),
        pytest.param(_checked(f"2 {TOPIC_ID} 41999 5@7,5@8"), "damaged", id="closings-not-ascending"),
        pytest.param(_checked(f"3 {TOPIC_ID} 41999 5@7"), "damaged", id="joint-insert-missing"),
        pytest.param(
            _checked(f"3 {TOPIC_ID} 41999 {JOINT_TEXT}"), "damaged", id="closings-missing-before-a-joint-insert"
        ),
        pytest.param(_checked(f"3 {TOPIC_ID} 41999 - {JOINT_TEXT[1:]}"), "damaged", id="joint-insert-cut-short"),
        pytest.param(_checked(f"3 {TOPIC_ID} 41999 - {JOINT.name}"), "damaged", id="joint-insert-without-hour"),
        pytest.param(_checked(f"2 {TOPIC_ID} 41999 -"), "damaged", id="hyphen-in-version-2"),
        pytest.param("2", "damaged", id="nothing-but-a-version"),
    ],
)
def test_foreign_metadata_is_refused_in_one_line(metadata: str, message: str) -> None:
    """The message names the place, the fault and the way out, in a readable length."""
    with pytest.raises(HaltError) as error:
        _parse(metadata)
    said = str(error.value)
    assert said.startswith(f"{WHERE}: ")
    assert message in said
    assert "reset the group's offsets" in said
    assert "\n" not in said
    assert len(said) < 300


def _refused_or_the_same(metadata: str, ranges: Ranges) -> None:
    with suppress(HaltError):
        assert _parse(metadata) == ranges


@pytest.mark.parametrize(
    ("ends", "closings", "joint_insert"),
    [
        pytest.param((), (), None, id="none"),
        pytest.param((41999,), (), None, id="one"),
        pytest.param((32000, 41999, 61999), (), None, id="three"),
        pytest.param((41999,), CLOSED, None, id="with-closings"),
        pytest.param((41999,), (), JOINT, id="with-a-joint-insert"),
        pytest.param((), CLOSED, JOINT, id="with-both"),
    ],
)
def test_no_damage_makes_other_ranges_of_it(
    ends: tuple[int, ...], closings: tuple[Closing, ...], joint_insert: JointInsert | None
) -> None:
    """Metadata that is cut short, lacks a character, or has another one in its place is refused."""
    ranges = Ranges(TOPIC_ID, ends, closings, joint_insert)
    metadata = str(ranges)
    for at in range(len(metadata)):
        if at:
            _refused_or_the_same(metadata[:at], ranges)
        _refused_or_the_same(metadata[:at] + metadata[at + 1 :], ranges)
        for other in map(chr, range(256)):
            _refused_or_the_same(metadata[:at] + other + metadata[at + 1 :], ranges)


@given(
    ends=ENDS,
    closings=CLOSINGS,
    at=st.integers(0, 200),
    length=st.integers(0, 8),
    filling=st.text(st.characters(codec="utf-8"), max_size=8),
)
def test_no_other_text_in_it_makes_other_ranges_of_it(
    ends: tuple[int, ...], closings: tuple[Closing, ...], at: int, length: int, filling: str
) -> None:
    """Metadata with some characters replaced by others is refused, unless it is the same."""
    ranges = Ranges(TOPIC_ID, ends, closings)
    metadata = str(ranges)
    _refused_or_the_same((metadata[:at] + filling + metadata[at + length :]) or " ", ranges)
