"""What must hold of any bytes, tried on what a fuzzer has found worth keeping, and on what Hypothesis thinks of."""

import time

import pytest
from hostile import seeds
from hostile.targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.avro_cases import damaged

from pipeline.decode.cursor import Cursor

_PROFILE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
_AT_MOST = 400
_CPU_SECONDS = 1.0  # for one input


def _begin_with(target: str) -> list[bytes]:
    made = seeds.make(target)
    return [*seeds.load(target), *made[:: len(made) // _AT_MOST + 1]]


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_that_was_found_breaks_anything(target: str) -> None:
    """Each seed gets one verdict, soon, and its neighbours are what they were."""
    for seed in _begin_with(target):
        began = time.process_time()
        TARGETS[target](seed)
        assert time.process_time() - began < _CPU_SECONDS, seed


@pytest.mark.parametrize("target", TARGETS)
def test_no_bytes_break_anything(target: str) -> None:
    """Neither bytes of any kind, nor those of a seed with some of them damaged."""
    changed = st.sampled_from(_begin_with(target)).flatmap(damaged)

    @settings(_PROFILE, max_examples=200)
    @given(st.binary(max_size=300) | changed | changed)
    def check(data: bytes) -> None:
        TARGETS[target](data)

    check()


def test_a_decoder_that_is_too_lax_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeds alone tell, when bytes behind the last field pass."""
    monkeypatch.setattr(Cursor, "finish", lambda _: None)
    with pytest.raises(AssertionError):
        list(map(TARGETS["records"], _begin_with("records")))
