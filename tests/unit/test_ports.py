"""Free ports of processes that run beside each other."""

import random

import pytest

from pipeline.devstack import ports


def test_shares_have_no_port_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each port is of one share, and all shares together are the whole range."""
    drawn = list[range]()

    def draw(population: range, count: int) -> list[int]:
        drawn.append(population)
        return list(population[:count])

    monkeypatch.setattr(ports, "_shares", [(0, 1)])  # this process has a share already
    monkeypatch.setattr(random, "sample", draw)
    for share in range(4):
        ports.share_ports(share, 4)
        assert ports.free_port() in drawn[-1]
    assert sorted(port for each in drawn for port in each) == list(ports._FREE_RANGE)
