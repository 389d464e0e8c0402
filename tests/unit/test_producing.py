"""RecordProducer without a broker: a full queue, a refused record, and records that nobody takes."""

import pytest
from confluent_kafka import KafkaError, KafkaException, Message

from pipeline.config import KafkaSettings
from pipeline.devstack.ports import free_port
from pipeline.kafka.producing import RecordProducer

_ONE_RECORD = {"queue.buffering.max.messages": 1}


@pytest.fixture
def nowhere() -> KafkaSettings:
    """Settings of a broker that doesn't exist."""
    return KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}")


def test_a_full_queue_is_waited_for(nowhere: KafkaSettings) -> None:
    """The second record waits until the first one has expired; both outcomes are reported."""
    codes: list[int | None] = []

    def delivered(error: KafkaError | None, _: Message | None) -> None:
        codes.append(error.code() if error else None)

    producer = RecordProducer(nowhere, _ONE_RECORD, timeout_seconds=0.5)
    for value in (b"1", b"2"):
        producer.produce("t", value, delivered=delivered)
    producer.flush()
    assert codes == [KafkaError._MSG_TIMED_OUT] * 2


def test_an_exception_ends_the_wait(nowhere: KafkaSettings) -> None:
    """A caller that knows better need not wait for room."""

    class KnownError(Exception):
        pass

    def raise_known() -> None:
        raise KnownError

    producer = RecordProducer(nowhere, _ONE_RECORD, waiting=raise_known)
    producer.produce("t", b"1")
    with pytest.raises(KnownError):
        producer.produce("t", b"2")


def test_a_record_that_is_refused_at_once_is_reported_once(nowhere: KafkaSettings) -> None:
    """The outcome goes to `delivered`; without it, the error is raised."""
    outcomes: list[tuple[KafkaError | None, Message | None]] = []
    producer = RecordProducer(nowhere, {"message.max.bytes": 1000}, timeout_seconds=0.5)
    producer.produce("t", bytes(10_000), delivered=lambda error, message: outcomes.append((error, message)))
    producer.flush()
    ((error, message),) = outcomes
    assert error is not None
    assert (error.code(), message) == (KafkaError.MSG_SIZE_TOO_LARGE, None)
    with pytest.raises(KafkaException):
        producer.produce("t", bytes(10_000))
