"""Requeueing on a real broker: each record is sent back once, whichever run breaks off or runs at the same time."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer
from support.dlq_topic import made_up, messages, reject, values
from support.events import publish
from support.processes import prepare

from pipeline.catalog import Family
from pipeline.config import Settings
from pipeline.dlq.index import CLAIM_SECONDS, Selection
from pipeline.dlq.reading import Reading
from pipeline.dlq.receipts import Outcome, Receipt
from pipeline.dlq.settle import Settler
from pipeline.kafka.client import client_config

pytestmark = pytest.mark.integration

_SECONDS = 120.0


@pytest.fixture
def family(settings: Settings) -> Family:
    return prepare(settings).family("ui_events")


def settler(
    settings: Settings,
    family: Family,
    *,
    claim_seconds: float = CLAIM_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Settler, Reading, Counter[str]]:
    """Start a run that has read the dead letters."""
    reading, outcome = Reading(settings.kafka, family, claim_seconds=claim_seconds), Counter[str]()
    for _ in reading.read():
        pass
    return Settler(settings.kafka, reading, outcome, clock=clock), reading, outcome


def go_round(run: Settler, reading: Reading) -> None:
    for letters in reading.pages(Selection()):
        while letters:
            del letters[: run.requeue(letters)]


class _KilledError(Exception):
    """Stands for a kill -9."""


@pytest.mark.parametrize(
    ("point", "found"),
    [
        pytest.param("_find", 0, id="claimed, not sent"),
        pytest.param("_produce", 3, id="sent, not noted"),
    ],
)
def test_another_run_finishes_a_run_that_broke_off(
    settings: Settings, family: Family, monkeypatch: pytest.MonkeyPatch, point: str, found: int
) -> None:
    """Its claims hold for a minute; then records that it sent are found, and the others are sent: each once."""
    reject(settings, family, made_up(3))
    publish(settings, family.topic.name, [b"before"])
    first, reading, _ = settler(settings, family)
    original = getattr(first, point)

    def killed(*arguments: Any) -> None:
        original(*arguments)
        raise _KilledError

    monkeypatch.setattr(first, point, killed)
    with pytest.raises(_KilledError):
        go_round(first, reading)
    publish(settings, family.topic.name, [b"after"])

    second, reading, outcome = settler(settings, family)
    go_round(second, reading)
    assert +outcome == {"left": 3}

    third, reading, outcome = settler(settings, family, claim_seconds=0)
    go_round(third, reading)
    assert +outcome == +Counter(found=found, requeued=3 - found)
    assert values(settings, family) == [b"0", b"1", b"2", b"after", b"before"]


def test_a_claim_is_as_old_as_the_broker_says(settings: Settings, family: Family) -> None:
    """The clock of the machine that made the claim may be an hour behind."""
    reject(settings, family, made_up(3))
    run, reading, outcome = settler(settings, family)
    letters = next(reading.pages(Selection()))
    claim = Receipt(Outcome.CLAIMED, "behind", tuple(letter.id for letter in letters), {0: 0, 1: 0})
    producer, hour_ago = Producer(client_config(settings.kafka)), round(time.time() * 1000) - 3_600_000
    producer.produce(family.dead_letters.name, claim.value, headers=[*claim.headers], timestamp=hour_ago)
    assert producer.flush(_SECONDS) == 0
    go_round(run, reading)
    assert +outcome == {"left": 3}
    assert values(settings, family) == []


def test_the_first_of_two_claims_holds(settings: Settings, family: Family) -> None:
    """Two runs have read the same dead letters; the second to claim them leaves them alone."""
    reject(settings, family, made_up(5))
    one, one_reading, _ = settler(settings, family)
    other, other_reading, outcome = settler(settings, family)
    go_round(one, one_reading)
    go_round(other, other_reading)
    assert +outcome == {"left": 5}
    assert values(settings, family) == [b"0", b"1", b"2", b"3", b"4"]


def test_an_old_claim_is_renewed(settings: Settings, family: Family) -> None:
    """A slow run sends some records under one claim and the others under the next: all of them, each once."""
    reject(settings, family, made_up(5))
    now = iter(range(0, 10_000, 15))  # the clock advances by 15 s at every call
    run, reading, outcome = settler(settings, family, clock=lambda: next(now))
    go_round(run, reading)
    assert +outcome == {"requeued": 5}
    assert values(settings, family) == [b"0", b"1", b"2", b"3", b"4"]
    claims = [
        message for message in messages(settings, family.dead_letters.name) if b"claimed" in (message.value() or b"")
    ]
    assert len(claims) == 5
