"""Free ports of processes that run beside each other."""

import random
import socket
import subprocess
import sys

import pytest

from pipeline.devstack import ports

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a port that is drawn isn't kept")

_DRAW = """
import random, sys
from pipeline.devstack import ports

random.sample = lambda *_: map(int, sys.argv[1:])
print(ports.free_port())
"""


def _drawn_elsewhere(*candidates: int) -> int:
    """Port that another process draws if it tries these in this order."""
    return int(subprocess.check_output([sys.executable, "-c", _DRAW, *map(str, candidates)], text=True))


def test_no_process_draws_a_port_that_another_has_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither this process nor another draws it again: not before its server listens, and not after it stopped."""
    drawn, free, other = ports.free_port(), ports.free_port(), ports.free_port()
    ports._drawn.clear()
    monkeypatch.setattr(random, "sample", lambda *_: [drawn, free, other])
    assert ports.free_port() == drawn
    assert _drawn_elsewhere(drawn, free) == free
    with socket.create_server((ports.HOST, drawn)):
        assert not ports.is_free(drawn)
    assert ports.is_free(drawn)
    assert ports.free_port() == free
    assert _drawn_elsewhere(drawn, free, other) == other
