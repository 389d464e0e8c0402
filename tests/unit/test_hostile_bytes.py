"""Properties that hold for any bytes, checked with the fuzzer's seeds and with Hypothesis."""

import time

import pytest
from hostile import seeds
from hostile.targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.avro_cases import damaged

from pipeline.decode.cursor import Cursor

pytestmark = pytest.mark.untraced  # other tests reach the same lines, and the tracer doubles the time of many examples

_PROFILE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
_AT_MOST = 400
_CPU_SECONDS = 1.0  # for one input


def _begin_with(target: str) -> list[bytes]:
    made = seeds.make(target)
    return [*seeds.load(target), *made[:: len(made) // _AT_MOST + 1]]


@pytest.mark.parametrize("target", TARGETS)
def test_no_seed_breaks_the_decoder(target: str) -> None:
    """Each seed gets one verdict in time, and its neighbours become their usual rows."""
    for seed in _begin_with(target):
        began = time.thread_time()
        TARGETS[target](seed)
        assert time.thread_time() - began < _CPU_SECONDS, seed


@pytest.mark.parametrize("target", TARGETS)
def test_no_bytes_break_the_decoder(target: str) -> None:
    """The same holds for arbitrary bytes, and for damaged seeds."""
    changed = st.sampled_from(_begin_with(target)).flatmap(damaged)

    @settings(_PROFILE, max_examples=200)
    @given(st.binary(max_size=300) | changed | changed)
    def check(data: bytes) -> None:
        TARGETS[target](data)

    check()


def test_the_seeds_notice_a_lax_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeds fail if the decoder accepts bytes after the last field."""
    monkeypatch.setattr(Cursor, "finish", lambda _: None)
    with pytest.raises(AssertionError):
        list(map(TARGETS["records"], _begin_with("records")))
