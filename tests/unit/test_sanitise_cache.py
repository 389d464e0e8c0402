"""The cache of treated values, under values that never come again."""

from collections.abc import Sequence

from pipeline.privacy import sanitise


def test_values_that_are_nearly_all_new_pass_by_the_cache() -> None:
    """It gets a few of them, so that it finds out when values begin to come again; each result is as with it."""
    asked = list[int]()

    def treat(values: Sequence[bytes]) -> list[bytes]:
        asked.append(len(values))
        return [value[::-1] for value in values]

    memory = sanitise._Memory(treat)
    new = [b"value %d" % number for number in range(3000)]
    assert memory.treated(new[:1000]) == [value[::-1] for value in new[:1000]]
    assert memory.treated(new[:1000]) == [value[::-1] for value in new[:1000]]
    for _ in range(4):
        assert memory.treated(new[:300] * 10) == [value[::-1] for value in new[:300]] * 10
    assert asked == [1000, 1000, 44]
