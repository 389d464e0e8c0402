"""The worker: a Faust app with one agent per event family, run by `faust -A pipeline worker`."""

import asyncio
import gc
import logging.config
import os
import signal
import threading
import traceback
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import gettempdir
from typing import Any, NoReturn, cast

import faust
import structlog
import uvloop
from faust.types import EventT

from pipeline.catalog import Catalog, Family, load_catalog
from pipeline.clickhouse.client import explain, kind_of
from pipeline.clickhouse.session_stats import TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Rows
from pipeline.config import Settings, load_settings
from pipeline.decode.decoder import Decoder
from pipeline.dlq.writer import DeadLetters
from pipeline.errors import ChimeraError, HaltError
from pipeline.kafka.failures import watch_login
from pipeline.kafka.registry import SchemaRegistry
from pipeline.kafka.topics import TopicAdmin
from pipeline.logs import logging_config
from pipeline.privacy.hashing import configured_hasher
from pipeline.privacy.sanitise import Sanitiser
from pipeline.privacy.text import sanitised
from pipeline.retry import Held, LostPartitionError
from pipeline.rollup.events import check_event_types
from pipeline.rollup.job import RollupJob
from pipeline.rollup.store import SnapshotStore
from pipeline.transport.batches import MicroBatch
from pipeline.transport.consumer import MicroBatchConsumer, TransportOptions
from pipeline.worker import web
from pipeline.worker.credentials import faust_credentials
from pipeline.worker.ingest import Ingest
from pipeline.worker.preflight import preflight

_STOP_SECONDS = 3.0  # for all of a stop but the drain
# Records are objects that the collector looks at, tens of thousands in each micro-batch and none in a cycle. At
# Python's own threshold of 700 it takes as long over them as fetching does.
_GC_THRESHOLD = (100_000, 20, 100)
_BRAKE_SECONDS = 1.0  # between two looks at it
_RECORDS_AT_ONCE = 20_000  # taken from the fetcher, which holds the rest compressed

log = structlog.get_logger("chimera.worker")


def create_app() -> "App":
    """The app of the settings in the environment, with an agent for each family.

    Raises:
        ConfigError: a setting, topics.yaml or a schema is wrong.
    """
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    settings = load_settings()
    app = App(settings, load_catalog(settings))
    for family in app.catalog.families:
        app.add_family(family)
    app.add_rollup()
    return app


class Worker(faust.Worker):
    """Faust's worker: starts when what it needs is there, ends with the exit code of the failure that stopped it."""

    app: "App"

    def on_setup_root_logger(self, logger: logging.Logger, level: int) -> None:
        """Leave the log as the settings have it; Faust would put a spinner there instead."""
        del logger, level
        self.spinner = None

    def execute_from_commandline(self) -> NoReturn:
        """Run until a signal or a failure."""
        logging.config.dictConfig(dict(self.app.conf.logging_config or {}))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupted)  # until Faust's own handlers are in place
        try:
            preflight(self.app.settings, self.app.catalog)
        except ChimeraError as error:
            log.critical(str(error))
            raise SystemExit(error.exit_code) from None
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLD)
        try:
            super().execute_from_commandline()
        except SystemExit as end:
            # A thread may wait for a server that is silent. What it waits for isn't acknowledged: leave without it.
            self._leave(int(end.code or 0))

    def _schedule_shutdown(self, number: signal.Signals) -> None:
        """Stop; and leave when the time for that is over, whoever doesn't answer."""
        seconds = self.app.settings.worker.drain_seconds + _STOP_SECONDS
        watchdog = threading.Timer(seconds, self._leave_unfinished, [seconds])
        watchdog.daemon = True
        watchdog.start()
        super()._schedule_shutdown(number)

    def _leave_unfinished(self, seconds: float) -> None:
        log.warning("leaving unfinished, what isn't committed is delivered again", after_seconds=seconds)
        self._leave(0)

    def _leave(self, code: int) -> NoReturn:
        code = self.app.failure.exit_code if self.app.failure else code
        log.info("stopped", exit_code=code)
        os._exit(code)


def _interrupted(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


class App(faust.App):
    """Faust's app, which waits for what it needs before it starts, and stops with one line when it can't go on."""

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self.settings = settings
        self.catalog = catalog
        self.failure: ChimeraError | None = None
        worker = settings.worker
        self._sink = Sink(settings.clickhouse)
        self._rollup = self._make_rollup()
        self.transport_options = TransportOptions(
            policies={family.topic.name: family.batch for family in catalog.families},
            batches_in_flight=worker.batches_in_flight,
            max_bytes=worker.max_bytes_in_flight,
            drain_seconds=worker.drain_seconds,
            topic_ids=TopicAdmin(settings.kafka).ids,
            halt=self.halt,
            deriver=self._rollup,
        )
        super().__init__(
            settings.kafka.group_id,
            broker=[f"batch://{server.strip()}" for server in settings.kafka.bootstrap_servers.split(",")],
            broker_credentials=faust_credentials(settings.kafka),
            broker_session_timeout=settings.kafka.session_timeout_seconds,
            broker_heartbeat_interval=settings.kafka.heartbeat_interval_seconds,
            broker_commit_interval=worker.commit_interval_seconds,
            consumer_max_fetch_size=settings.kafka.max_fetch_bytes,
            consumer_auto_offset_reset="earliest",
            broker_max_poll_records=_RECORDS_AT_ONCE,
            stream_wait_empty=True,
            topic_allow_declare=False,
            topic_disable_leader=True,
            store="memory://",
            datadir=Path(gettempdir()) / f"chimera-{settings.kafka.group_id}",
            web_bind=worker.web_host,
            web_port=worker.web_port,
            logging_config=logging_config(settings.log),
            Worker=Worker,
        )
        self._hasher = configured_hasher(settings.privacy)
        self._dead_letters = DeadLetters(settings.kafka, catalog.families)
        self._registry = SchemaRegistry(settings.registry) if settings.registry.url else None
        self._pool = ThreadPoolExecutor(worker.insert_threads, thread_name_prefix="ingest")
        self._places = asyncio.Semaphore(worker.insert_threads + 1)  # one micro-batch waits at hand
        self._ingests: dict[str, Ingest] = {}  # by topic
        self.page("/metrics")(web.metrics)
        self.page("/ready")(web.ready)
        self.timer(_BRAKE_SECONDS)(self._watch_brakes)
        if settings.kafka.tls or settings.kafka.sasl:
            self.task(self._watch_login)

    def _new_web(self) -> web.Web:
        return web.Web(self)

    def add_family(self, family: Family) -> None:
        """Consume the family's topic with an agent of its own."""
        ingest = Ingest(
            family,
            decoder=Decoder(
                family, self._registry, self.settings.validation, sanitise=Sanitiser(family.schema, self._hasher)
            ),
            sink=self._sink,
            dead_letters=self._dead_letters,
            renew=self._renew,
            pool=self._pool,
            settings=self.settings.worker,
        )
        self._ingests[family.topic.name] = ingest

        async def consume(stream: Any) -> None:
            events: AsyncIterator[EventT[Any]] = stream.noack().events()
            async for event in events:
                batch: Any = event.value
                if not batch.replayed:
                    await self._places.acquire()
                    self.add_future(self._see_through(ingest, batch))

        topic = self.topic(family.topic.name, key_serializer="raw", value_serializer="raw")
        self.agent(topic, name=family.name)(consume)

    def _make_rollup(self) -> RollupJob | None:
        if not self.settings.rollup.enabled or self.catalog.rollup is None:
            return None
        check_event_types(self.catalog.rollup.source)
        return RollupJob(
            self.catalog.rollup.source.topic.name,
            self.settings,
            store=SnapshotStore(self.settings.kafka, self.catalog.rollup.state),
            sink=self._sink,
            consumer=self._batch_consumer,
            renew=self._renew,
            decode=self._rows_of,
            halt=self.halt,
        )

    def add_rollup(self) -> None:
        """Derive session_stats, with an agent that gets the same micro-batches as that of their family."""
        if (rollup := self._rollup) is None:
            return

        async def derive(stream: Any) -> None:
            events: AsyncIterator[EventT[Any]] = stream.noack().events()
            async for event in events:
                batch: Any = event.value
                rollup.take(batch)

        for name in rollup.topics:
            self.agent(self.topic(name, key_serializer="raw", value_serializer="raw"), name=TABLE)(derive)
        self.task(rollup.run)

    async def _rows_of(self, batch: MicroBatch) -> Rows:
        """What ingest decodes; what is delivered for the rollup alone is decoded for it."""
        ingest = self._ingests[batch.topic]
        if not batch.replayed:
            return await ingest.decoded(batch)
        async with self._places:
            return await ingest.decode(batch)

    def halt(self, error: BaseException) -> None:
        """Stop the worker because of this, with nothing more acknowledged than what is done."""
        if self.failure is not None:
            return
        if kind_of(error) is None:
            # What is raised by somebody else's code may quote a record.
            trace = "".join(traceback.format_tb(error.__traceback__))
            log.error("unexpected", error=repr(sanitised([str(error)])[0]), trace=f"\n{trace}")
            self.failure = HaltError(f"unexpected {type(error).__name__}; its trace is in the log")
        else:
            self.failure = error if isinstance(error, ChimeraError) else explain(error, self.settings.clickhouse)
        log.critical(str(self.failure))
        signal.raise_signal(signal.SIGTERM)

    async def _watch_brakes(self) -> None:
        for ingest in self._ingests.values():
            ingest.watch_brake()

    async def _watch_login(self) -> None:
        await watch_login(self.settings.kafka, lambda: self._batch_consumer().failed_connections, self.halt)

    def _batch_consumer(self) -> MicroBatchConsumer:
        consumer: Any = self.consumer
        return cast("MicroBatchConsumer", consumer)

    async def _renew(self, held: Held) -> bool:
        return await self._batch_consumer().renew(held)

    async def _see_through(self, ingest: Ingest, batch: MicroBatch) -> None:
        try:
            try:
                rows = await ingest.decode(batch)
                if rows.rejections:
                    # Before the rows: should this be repeated by a version that takes such records, the token is known.
                    # A dead-letter topic that can't be written is not to hold up others.
                    self._places.release()
                    try:
                        await ingest.reject(batch, rows.rejections)
                    finally:
                        await self._places.acquire()
                await ingest.insert(batch, rows)
            finally:
                self._places.release()
            batch.ack()
        except LostPartitionError:
            log.info("micro-batch left to the partition's new owner", batch=repr(batch))
        except Exception as error:  # noqa: BLE001 (whatever it is, going on would lose the micro-batch)
            self.halt(error)

    def on_rebalance_end(self) -> None:
        """Say that records flow, and of how many partitions."""
        super().on_rebalance_end()
        log.info("consuming", partitions=len(self.consumer.assignment()))

    @property
    def troubles(self) -> list[str]:
        """Why the worker isn't ready: a rebalance, something that failed and is tried again, too many rejections."""
        troubles = ["partitions are being reassigned" if self.rebalancing else None]
        troubles += [part.trouble for part in (*self._ingests.values(), self._rollup) if part]
        return [trouble for trouble in troubles if trouble]
