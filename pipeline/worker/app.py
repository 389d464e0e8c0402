"""The app that `faust -A pipeline worker` runs: it wires an agent for each event family, and one for the rollup."""

import asyncio
import signal
import socket
import traceback
from collections.abc import AsyncIterator, Awaitable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import faust
import faust.app.base
import structlog
import uvloop
from faust.types import EventT

from pipeline import metrics
from pipeline.catalog import Catalog, Family, load_catalog
from pipeline.clickhouse.block_budget import BlockBudget
from pipeline.clickhouse.client import explain, kind_of
from pipeline.clickhouse.deduplication import window_seconds_needed
from pipeline.clickhouse.pulse import Pulse
from pipeline.clickhouse.session_stats import TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Rows, core
from pipeline.config import ClickHouseSettings, Settings, load_settings
from pipeline.decode.decoder import Decoder
from pipeline.dlq.writer import DeadLetters
from pipeline.errors import ChimeraError, HaltError
from pipeline.kafka.failures import watch_login
from pipeline.kafka.registry import registry_of
from pipeline.logs import logging_config
from pipeline.privacy.hashing import configured_hasher
from pipeline.privacy.sanitise import Sanitiser
from pipeline.privacy.text import sanitised
from pipeline.retry import Held
from pipeline.rollup.events import check_event_types
from pipeline.rollup.job import RollupJob
from pipeline.rollup.store import SnapshotStore
from pipeline.transport.adapter.assignor import BalancedAssignor
from pipeline.transport.adapter.credentials import faust_credentials
from pipeline.transport.asking import KAFKA, PARTITIONS
from pipeline.transport.broker import Beginning
from pipeline.transport.consumer import MicroBatchConsumer
from pipeline.transport.micro_batch import MicroBatch
from pipeline.transport.options import TransportOptions
from pipeline.troubles import Troubles
from pipeline.worker import web
from pipeline.worker.assigned import assigned_topics
from pipeline.worker.family_metrics import FamilyMetrics
from pipeline.worker.fresh_group import check_beginnings
from pipeline.worker.ingest import Ingest
from pipeline.worker.memory import MemoryReturn
from pipeline.worker.places import Places, places_for
from pipeline.worker.process import Worker
from pipeline.worker.state_metrics import StateMetrics
from pipeline.worker.table_watch import TableWatch

_LOOK_SECONDS = 0.5  # between two looks at the membership and the reject rates
_MEMORY_SECONDS = 1.0  # between two looks at the records in memory
_ANSWER_SECONDS = 90.0  # longest wait of the consumer for an answer, as Faust has it
_SESSION_MARGIN_SECONDS = 5.0  # Faust wants requests to wait longer than a session lasts
_SILENT_SECONDS = 4.0  # besides the time to the next heartbeat
_METADATA_SECONDS = 10.0  # age at which aiokafka asks for the topics' partitions again
_RECORDS_AT_ONCE = 20_000  # taken from the fetcher, which holds the rest compressed

log = structlog.get_logger("chimera.worker")


def create_app() -> "App":
    """Return the app for the settings in the environment, with an agent for each family.

    Raises:
        ConfigError: a setting, topics.yaml or a schema is wrong.
    """
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    faust.app.base.STRICT = False  # type: ignore[attr-defined] # Faust has read it from the environment
    settings = load_settings()
    core.choose(use=settings.worker.compiled_core)
    app = App(settings, load_catalog(settings))
    for family in app.catalog.families:
        app.add_family(family)
    app.add_rollup()
    return app


class App(faust.App):
    """Faust's app with the worker's parts; `halt` stops it with one line in the log."""

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self.settings = settings
        self.catalog = catalog
        self.failure: ChimeraError | None = None
        self.troubles = Troubles()
        """Troubles of all parts of the worker."""
        self.listeners: list[socket.socket] = []
        """Sockets of the web server, once the worker has started."""
        self._joined = False
        worker = settings.worker
        self._pulse = Pulse(settings.clickhouse, self.troubles)
        self._sink = Sink(settings.clickhouse, pulse=self._pulse)
        self._budget = BlockBudget(window_seconds_needed(settings))
        self._rollup = self._make_rollup()
        self._tables = TableWatch(
            settings, catalog, lambda topics: self._batch_consumer().partitions(topics), share=self._budget.set
        )
        self.transport_options = self._make_transport_options()
        super().__init__(settings.kafka.group_id, **_faust_options(settings))
        self._hasher = configured_hasher(settings.privacy)
        self._dead_letters = DeadLetters(settings.kafka, catalog.families)
        self._registry = registry_of(settings.registry)
        self._pool = ThreadPoolExecutor(worker.insert_threads, thread_name_prefix="ingest")
        self._places = Places(places_for(worker.insert_threads))
        self._ingests: dict[str, Ingest] = {}  # by topic
        self._family_metrics: dict[str, FamilyMetrics] = {}
        for path, page in (("/metrics", web.metrics), ("/ready", web.ready), ("/live", web.live)):
            self.page(path)(page)
        self.task(self._watch_tables)
        self._memory = MemoryReturn()
        self.timer(_MEMORY_SECONDS)(self._return_memory)
        if settings.kafka.tls or settings.kafka.sasl:
            self.task(self._watch_login)

    def expect_columns(self, tables: Mapping[str, Mapping[str, str]]) -> None:
        """Stop the worker when it would insert into a table whose columns are others; see `Sink.expect`."""
        self._sink.expect(tables)
        self._pulse.start(tables)

    def _make_transport_options(self) -> TransportOptions:
        worker = self.settings.worker
        return TransportOptions(
            policies={family.topic.name: family.batch for family in self.catalog.families},
            batches_in_flight=worker.batches_in_flight,
            enough_in_flight=places_for(worker.insert_threads) + 1,
            places=places_for(worker.insert_threads),
            max_bytes=worker.max_bytes_in_flight,
            max_unpacked_bytes=self.settings.kafka.max_unpacked_bytes,
            drain_seconds=worker.drain_seconds,
            silent_seconds=self.settings.kafka.heartbeat_interval_seconds + _SILENT_SECONDS,
            troubles=self.troubles,
            check_beginnings=self._check_beginnings,
            before_takeover=self._tables.before_takeover,
            halt=self.halt,
            deriver=self._rollup,
        )

    def _check_beginnings(self, beginnings: Sequence[Beginning]) -> None:
        if not self.settings.worker.allow_fresh_group:
            check_beginnings(self.settings, self.catalog, self._registry, beginnings)

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
            budget=self._budget,
            troubles=self.troubles,
        )

    def _create_directories(self) -> None:
        """Create no directory: the worker keeps nothing on disk, and a group's name may be no valid name for one."""

    def _init_fixups(self) -> list[Any]:
        """Return no fixups: Faust would load Django if an environment variable names its settings."""
        return []

    def _new_web(self) -> web.Web:
        return web.Web(self)

    def add_family(self, family: Family) -> None:
        """Consume the family's topic with an agent of its own."""
        counted = self._family_metrics[family.name] = FamilyMetrics(family.name)
        sanitise = counted.sanitising(Sanitiser(family.schema, self._hasher))
        ingest = self._ingests[family.topic.name] = Ingest(
            family,
            decoder=Decoder(family, self._registry, self.settings.validation, sanitise=sanitise),
            sink=self._sink,
            dead_letters=self._dead_letters,
            renew=self._renew,
            pool=self._pool,
            places=self._places,
            settings=self.settings.worker,
            budget=self._budget,
            family_metrics=counted,
            troubles=self.troubles,
        )

        async def consume(stream: Any) -> None:
            async for batch in _micro_batches(stream):
                if not batch.replayed:
                    begun = asyncio.Event()
                    self.add_future(self._or_halt(ingest.process(batch, begun)))
                    await begun.wait()  # the rest stays in the agent's queue, where a rebalance doesn't wait for it

        topic = self.topic(family.topic.name, key_serializer="raw", value_serializer="raw")
        self.agent(topic, name=family.name)(consume)

    def add_rollup(self) -> None:
        """Derive session_stats with an agent that gets the same micro-batches as the agent of their family."""
        if (rollup := self._rollup) is None:
            return

        async def derive(stream: Any) -> None:
            async for batch in _micro_batches(stream):
                rollup.take(batch)

        for name in rollup.topics:
            self.agent(self.topic(name, key_serializer="raw", value_serializer="raw"), name=TABLE)(derive)
        self.task(rollup.run)

    async def _rows_of(self, batch: MicroBatch) -> Rows:
        """Rows of a micro-batch for the rollup: ingest decodes it, and decodes a replayed one for the rollup alone."""
        return await (self._ingests[batch.topic].decode_replayed(batch) if batch.replayed else batch.decoded.get())

    async def _or_halt(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 (after any failure, going on would lose the micro-batch)
            self.halt(error)

    def halt(self, error: BaseException) -> None:
        """Stop the worker because of a failure; nothing unfinished is acknowledged."""
        if self.failure is not None:
            return
        self.failure = _failure_of(error, self.settings.clickhouse)
        log.critical(str(self.failure))
        self.troubles.report("halt", str(self.failure), usual=True)  # the line above says it
        signal.raise_signal(signal.SIGTERM)

    async def on_start(self) -> None:
        """Look for troubles from now on: Faust starts its timers only once the group has let the worker in."""
        await super().on_start()
        self.add_future(_look_for_troubles(self.troubles, self._batch_consumer(), self._ingests.values()))

    async def _return_memory(self) -> None:
        if self._memory.due(self._batch_consumer().member.assignment.held_bytes):
            await asyncio.to_thread(self._memory.run)

    @property
    def state_metrics(self) -> StateMetrics:
        """Metrics of the state of this worker."""
        return StateMetrics(
            lambda: self._batch_consumer() if self._joined else None, self._family_metrics, self.troubles
        )

    async def _watch_tables(self) -> None:
        await self._tables.run(self.halt)

    async def _watch_login(self) -> None:
        await watch_login(self.settings.kafka, lambda: self._batch_consumer().failed_connections, self.halt)

    def _batch_consumer(self) -> MicroBatchConsumer:
        consumer: Any = self.consumer
        return cast("MicroBatchConsumer", consumer)

    async def _renew(self, held: Held) -> bool:
        return await self._batch_consumer().renew(held)

    def on_rebalance_start(self) -> None:
        """Note that nothing is delivered until the partitions are assigned."""
        super().on_rebalance_start()
        metrics.REBALANCES.inc()
        self.note_rebalance()

    def note_rebalance(self) -> None:
        """Report if the worker has no partitions for now."""
        moving = self.rebalancing or not self._joined
        self.troubles.note(PARTITIONS, "the group hasn't assigned them yet" if moving else None, usual=True)

    def on_rebalance_end(self) -> None:
        """Log that the worker consumes, and from which partitions of which topics."""
        super().on_rebalance_end()
        self._joined = True
        self.note_rebalance()
        if self.failure is None:
            assigned = self.consumer.assignment()
            log.info("consuming", partitions=len(assigned), topics=assigned_topics(assigned))


async def _look_for_troubles(troubles: Troubles, consumer: MicroBatchConsumer, ingests: Collection[Ingest]) -> None:
    """Report what no step of a micro-batch reports, until the worker stops."""
    while True:
        trouble = consumer.trouble
        if trouble is None:
            troubles.end(KAFKA)
        else:
            troubles.report(KAFKA, trouble.cause, seconds=trouble.seconds, attempts=trouble.attempts)
        for ingest in ingests:
            ingest.watch_reject_rate()
        await asyncio.sleep(_LOOK_SECONDS)


async def _micro_batches(stream: Any) -> AsyncIterator[MicroBatch]:
    """Yield the micro-batches of a stream; Faust acknowledges none of them."""
    events: AsyncIterator[EventT[Any]] = stream.noack().events()
    async for event in events:
        yield cast("MicroBatch", event.value)


def _failure_of(error: BaseException, settings: ClickHouseSettings) -> ChimeraError:
    """Return the failure that explains an error to the user; the trace of an unforeseen one is logged."""
    if isinstance(error, ChimeraError):
        return error
    if kind_of(error) is not None:
        return explain(error, settings)
    # The message of an unforeseen exception may quote a record.
    trace = "".join(traceback.format_tb(error.__traceback__))
    message = " ".join(sanitised([str(error)])[0].split())
    log.error("unexpected", error=message, trace=f"\n{trace}")
    return HaltError(f"unexpected {type(error).__name__}; its trace is in the log")


def _faust_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments of `faust.App`."""
    kafka, worker = settings.kafka, settings.worker
    return {
        "broker": [f"batch://{server.strip()}" for server in kafka.bootstrap_servers.split(",")],
        "broker_credentials": faust_credentials(kafka),
        "broker_session_timeout": kafka.session_timeout_seconds,
        "broker_heartbeat_interval": kafka.heartbeat_interval_seconds,
        "broker_commit_interval": worker.commit_interval_seconds,
        "consumer_max_fetch_size": kafka.max_fetch_bytes,
        "consumer_auto_offset_reset": "earliest",
        "consumer_group_instance_id": kafka.instance_id,
        "PartitionAssignor": BalancedAssignor,
        "consumer_metadata_max_age_ms": round(_METADATA_SECONDS * 1000),
        "broker_max_poll_records": _RECORDS_AT_ONCE,
        "stream_wait_empty": True,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "store": "memory://",
        "broker_request_timeout": max(_ANSWER_SECONDS, kafka.session_timeout_seconds + _SESSION_MARGIN_SECONDS),
        "datadir": Path("/"),  # unused: see _create_directories
        "debug": False,
        "web_transport": "tcp://",
        "env": {},  # Faust would let variables such as PROCESSING_GUARANTEE overrule all of this
        "web_bind": worker.web_host,
        "web_port": worker.web_port,
        "logging_config": logging_config(settings.log),
        "Worker": Worker,
    }
