"""A high reject rate turns a real worker's readiness red, and stops nothing."""

import asyncio
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.events import as_stored, bag, events, publish, rows, settled
from support.processes import Worker, prepare
from support.records import TOPIC_ID, parts_of

from pipeline.clickhouse.sink import Sink
from pipeline.config import Settings, env_name
from pipeline.decode.decoder import Decoder
from pipeline.dlq.letters import DlqRecord
from pipeline.dlq.writer import DeadLetters
from pipeline.producer.encode import Encoder
from pipeline.retry import Held
from pipeline.transport.micro_batch import State
from pipeline.transport.partition import PartitionBatches
from pipeline.troubles import Troubles
from pipeline.worker.ingest import Ingest
from pipeline.worker.places import Places

pytestmark = pytest.mark.integration

_GOOD, _BAD = 30, 70


def test_too_many_rejections_turn_readiness_red_until_the_window_is_clean(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """The reason is at /ready, in the metrics and once in the log for each change; valid records are stored."""
    family = prepare(settings).family("ui_events")
    good = events(family.name, _GOOD)
    valid = [Encoder(family).encode(event).value for event in good]
    environ = {**environ, env_name("worker", "reject_window_seconds"): "8"}
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        publish(settings, family.topic.name, [b"rejected"] * _BAD + valid)
        worker.wait_for(lambda: worker.metric("chimera_reject_brake", family=family.name) == 1, "a high reject rate")
        reason = rf"not ready: ui_events: {_BAD} of \d+ records rejected in 8 s, more than 50% of them, \d+ s\n"
        worker.wait_for(lambda: re.fullmatch(reason, worker.why_not_ready), "the reason")
        settled(worker, settings, family, _GOOD + _BAD)
        worker.wait_for(lambda: worker.metric("chimera_reject_brake", family=family.name) == 0, "a low reject rate")
        assert worker.ready
        assert worker.metric("chimera_reject_brake") == 0
        assert len(worker.lines("trouble begins")) == len(worker.lines("trouble is over")) == 1
    assert bag(rows(settings, family.table)) == bag(as_stored(family, event) for event in good)


def test_a_rejection_and_its_record_are_counted_at_the_same_moment(settings: Settings) -> None:
    """However long the dead-letter topic takes, records don't leave the window before their rejections."""
    family, window_seconds = prepare(settings).family("ui_events"), 4.0

    async def renew(_: Held) -> bool:
        return True

    partition = PartitionBatches(family.topic.name, TOPIC_ID, 0, State(0, ()), policy=family.batch, limit=1)
    partition.add(parts_of(DlqRecord(0, offset, 0, None, b"rejected", []) for offset in range(_BAD)), 0)
    (batch,) = partition.cut(0, hurry=True)
    dead_letters, troubles = DeadLetters(settings.kafka, [family]), Troubles()
    with ThreadPoolExecutor(1) as pool:
        ingest = Ingest(
            family,
            decoder=Decoder(family),
            sink=Sink(settings.clickhouse),
            dead_letters=dead_letters,
            renew=renew,
            pool=pool,
            places=Places(1),
            settings=settings.worker.model_copy(update={"reject_window_seconds": window_seconds}),
            troubles=troubles,
        )

        async def process() -> None:
            await ingest.process(batch)
            ingest.watch_reject_rate()

        dead_letters.pool.submit(time.sleep, 1.5 * window_seconds)  # the dead letters wait for this
        asyncio.run(process())
        assert troubles.lines == [
            f"{family.name}: {_BAD} of {_BAD} records rejected in {window_seconds:g} s, more than 50% of them, 0 s"
        ]
