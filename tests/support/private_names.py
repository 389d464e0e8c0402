"""Names of libraries that no documentation promises, and that the pipeline uses: one table, with a reason for each.

Private names, methods that the pipeline overrides, and the parts of clickhouse-driver that an insert of arrays uses.
"""

from support.private_name import Name
from support.private_names_fetch import FETCH_NAMES
from support.private_names_group import GROUP_NAMES
from support.private_names_worker import WORKER_NAMES

_CONSUMER = "faust.transport.consumer:Consumer"
_THREADED = "faust.transport.consumer:ThreadDelegateConsumer"
_THREAD = "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread"
_DRIVER = "faust.transport.drivers.aiokafka:Consumer"
_FETCHER = "aiokafka.consumer.fetcher"
_GROUP = "aiokafka.consumer.group_coordinator:GroupCoordinator"
_RECORDS = "aiokafka.record.memory_records:_MemoryRecordsPy"
_CLIENT = "clickhouse_driver:Client"
_CONNECTION = "clickhouse_driver.connection:Connection"

NAMES = [
    *FETCH_NAMES,
    *GROUP_NAMES,
    *WORKER_NAMES,
    # Faust's consumer: overridden by MicroBatchConsumer.
    Name(
        f"{_CONSUMER}._wait_next_records",
        "returns micro-batches in place of records",
        "self timeout",
        (f"{_CONSUMER}.getmany", "records, active_partitions = await self._wait_next_records(timeout)"),
    ),
    Name(
        f"{_DRIVER}._to_message",
        "makes one message of a micro-batch",
        "self tp record",
        (f"{_CONSUMER}.getmany", "to_message = self._to_message"),
    ),
    Name(
        f"{_CONSUMER}._add_gap",
        "offsets between two micro-batches are no gap",
        "self tp offset_from offset_to",
        (f"{_CONSUMER}._drain_messages", "await self._add_gap(tp, r_offset + 1, offset)"),
    ),
    Name(
        f"{_CONSUMER}.force_commit",
        "commits the states of micro-batches too",
        "self topics start_new_transaction",
        (f"{_CONSUMER}.commit", "return await self.force_commit("),
    ),
    Name(
        f"{_CONSUMER}.wait_empty",
        "waits no longer than a rebalance may take",
        "self",
        ("faust.app.base:App._consumer_wait_empty", "await consumer.wait_empty()"),
    ),
    Name(
        f"{_CONSUMER}.stop_flow",
        "forgets micro-batches in queues that Faust clears",
        "self",
        ("faust.app.base:App._stop_consumer", "consumer.stop_flow()"),
    ),
    Name(
        f"{_CONSUMER}.perform_seek",
        "takes partitions over",
        "self",
        ("faust.tables.recovery:Recovery._resume_streams", "consumer.perform_seek()"),
    ),
    Name(
        f"{_CONSUMER}.on_partitions_revoked",
        "lets partitions go",
        "self revoked",
        (f"{_THREADED}.threadsafe_partitions_revoked", "self.on_partitions_revoked,"),
    ),
    Name(
        f"{_CONSUMER}.on_partitions_assigned",
        "notes the membership",
        "self assigned generation_id",
        (f"{_THREADED}.threadsafe_partitions_assigned", "self.on_partitions_assigned,"),
    ),
    Name(f"{_CONSUMER}.on_stop", "lets all partitions go", "self", (f"{_CONSUMER}.on_stop", "await self.wait_empty()")),
    Name(
        f"{_THREADED}._new_consumer_thread",
        "makes a BrokerThread",
        "self",
        (f"{_THREADED}.__init__", "self._thread = self._new_consumer_thread()"),
    ),
    Name(
        "mode.services:Service.shortlabel",
        "keeps the consumer's name in the log",
        None,
        ("mode.services:Service._format_log", "{self.shortlabel}"),
    ),
    # Faust's consumer: used.
    Name(f"{_CONSUMER}._get_active_partitions", "partitions to fetch from", "self"),
    Name(
        f"{_THREADED}()._thread",
        "the thread that runs aiokafka's consumer",
        None,
        (f"{_THREADED}._getmany", "await self._thread.getmany(active_partitions, timeout)"),
    ),
    Name(
        f"{_CONSUMER}()._read_offset",
        "Faust drops messages below it, so it is reset after a seek",
        None,
        (f"{_CONSUMER}._drain_messages", "if r_offset is None or offset >= r_offset:"),
    ),
    Name(f"{_CONSUMER}.seek", "moves a partition and its read offset", "self partition offset"),
    Name(
        f"{_CONSUMER}.unacked",
        "Faust waits for these messages; set by track_message",
        None,
        (f"{_CONSUMER}.track_message", "self._unacked_messages.add(message)"),
    ),
    Name(
        "asyncio:Queue()._queue",
        "looks into the queue of an agent without taking",
        None,
        ("asyncio:Queue._init", "self._queue = collections.deque()"),
    ),
    # Faust's thread: overridden by BrokerThread.
    Name(
        f"{_THREAD}._create_worker_consumer",
        "sets what Faust has no setting for",
        "self transport",
        (f"{_THREAD}._create_consumer", "return self._create_worker_consumer(transport)"),
    ),
    Name(
        f"{_THREAD}._fetch_records",
        "takes batches as they were fetched; keeps those of a rebalance",
        "self consumer active_partitions timeout max_records",
        (f"{_THREAD}.getmany", "self._fetch_records,"),
    ),
    Name(
        f"{_THREAD}.seek_to_committed",
        "limits the time for the answer",
        "self",
        (f"{_THREADED}.seek_to_committed", "await self._thread.seek_to_committed()"),
    ),
    Name(
        f"{_THREAD}.on_thread_stop",
        "limits the time to leave the group",
        "self",
        ("mode.threads:ServiceThread._shutdown_thread", "await self.on_thread_stop()"),
    ),
    Name(f"{_THREAD}._ensure_consumer", "aiokafka's consumer", "self"),
    Name(f"{_THREAD}()._consumer", "the same, or None before the thread has started"),
    Name(
        f"{_THREAD}.topic_partitions",
        "knows partitions also in workers that don't lead the group",
        "self topic",
        (f"{_THREADED}.topic_partitions", "self._thread.topic_partitions(topic)"),
    ),
    Name(
        f"{_THREAD}.on_start",
        "watches over the membership",
        "self",
        (f"{_THREAD}.on_start", "await self._consumer.start()"),
    ),
    # aiokafka's consumer.
    Name("aiokafka:AIOKafkaConsumer()._coordinator", "membership, and commits with metadata"),
    Name("aiokafka:AIOKafkaConsumer()._client", "counts connections; refreshes metadata"),
    Name(
        "aiokafka:AIOKafkaConsumer()._isolation_level",
        "Faust sets it only for workers with transactions",
        None,
        ("aiokafka:AIOKafkaConsumer.start", "isolation_level=self._isolation_level"),
    ),
    Name(
        "aiokafka:AIOKafkaConsumer()._fetcher",
        "has the fetched records",
        None,
        ("aiokafka:AIOKafkaConsumer.start", "self._fetcher = Fetcher("),
    ),
    Name(
        "aiokafka.client:AIOKafkaClient._get_conn",
        "counts connections that failed",
        "self node_id group no_hint",
        ("aiokafka.client:AIOKafkaClient.ready", "await self._get_conn("),
    ),
    Name(
        "aiokafka.client:create_conn",
        "replaced, because the client takes no other connection",
        None,
        ("aiokafka.client:AIOKafkaClient._get_conn", "= await create_conn("),
    ),
    Name(
        "aiokafka.conn:AIOKafkaConnection._send_sasl_token",
        "overridden, as is send",
        "self payload expect_response",
        ("aiokafka.conn:AIOKafkaConnection.send", "except OSError as err:"),
    ),
    Name(
        "aiokafka.conn:AIOKafkaConnection.send",
        "overridden: the connection is lost if its transport is closed",
        "self request expect_response",
        ("aiokafka.client:AIOKafkaClient.send", ".send("),
    ),
    Name(
        f"{_FETCHER}:Fetcher.error_future",
        "tells whether the task for fetches has failed",
        None,
        (f"{_FETCHER}:Fetcher.error_future", "return self._fetch_task"),
    ),
    Name("aiokafka.client:AIOKafkaClient.force_metadata_update", "finds a topic that was missing", "self"),
    Name(
        f"{_GROUP}()._commit_lock",
        "one commit at a time, also with aiokafka's own",
        None,
        (f"{_GROUP}.commit_offsets", "async with self._commit_lock:"),
    ),
    Name(
        f"{_GROUP}._do_commit_offsets",
        "commits metadata, once, as the member that was checked",
        "self assignment offsets",
        (f"{_GROUP}.commit_offsets", "self._do_commit_offsets(assignment, offsets)"),
    ),
    Name(f"{_GROUP}.fetch_committed_offsets", "reads metadata", "self partitions"),
    Name(f"{_GROUP}.ensure_coordinator_known", "before a commit", "self"),
    Name("aiokafka.consumer.consumer:GroupCoordinator", "replaced by CheckedCoordinator; the consumer makes one of it"),
    Name(
        f"{_GROUP}._send_req",
        "overridden to check answers",
        "self request",
        (f"{_GROUP}._do_fetch_commit_offsets", "response = await self._send_req(request)"),
    ),
    Name("aiokafka.protocol.commit:OffsetFetchRequest()._partitions", "for the answer's check"),
    Name("aiokafka.protocol.commit:OffsetCommitRequest()._topics", "partitions that are committed"),
    Name(f"{_GROUP}.request_rejoin", "requests a new assignment", "self"),
    Name(f"{_GROUP}().generation", "membership; no public method gives it"),
    Name(f"{_GROUP}().member_id", "membership"),
    Name(
        f"{_THREAD}().tp_last_committed_at",
        "tells Faust's own check that a partition was committed",
        None,
        (f"{_THREAD}.verify_event_path", "self.tp_last_committed_at"),
    ),
    # aiokafka's fetched records.
    Name(
        f"{_FETCHER}:Fetcher._create_fetch_waiter",
        "waits for records of any partition",
        "self",
        (f"{_FETCHER}:Fetcher.fetched_records", "waiter = self._create_fetch_waiter()"),
    ),
    Name(
        f"{_FETCHER}:Fetcher()._records",
        "fetched records by partition",
        None,
        (f"{_FETCHER}:Fetcher._proc_fetch_request", "self._records[tp] = FetchResult("),
    ),
    Name(
        f"{_FETCHER}:FetchResult()._partition_records",
        "replaced by parts of the log",
        None,
        (f"{_FETCHER}:FetchResult.getall", "for msg in self._partition_records:"),
    ),
    Name(f"{_FETCHER}:PartitionRecords()._records", "batches of a fetch"),
    Name(f"{_FETCHER}:PartitionRecords().next_fetch_offset", "kept by the parts of the log"),
    Name(f"{_FETCHER}:PartitionRecords()._check_crcs", "kept by the parts of the log"),
    Name(f"{_FETCHER}:PartitionRecords()._aborted_transactions", "index of the batches to leave out"),
    Name(f"{_FETCHER}:FetchResult()._assignment", "has the positions before and after a fetch is taken"),
    Name(f"{_FETCHER}:Fetcher()._isolation_level", "a copy asks for the ends of logs, open transactions included"),
    Name(
        f"{_FETCHER}:PartitionRecords()._records_iterator",
        "tells whether records were read already",
        None,
        (f"{_FETCHER}:PartitionRecords.__init__", "self._records_iterator = self._unpack_records()"),
    ),
    Name(
        f"{_FETCHER}:FetchResult._update_position",
        "the parts of the log have next_fetch_offset too",
        "self",
        (f"{_FETCHER}:FetchResult._update_position", "state.consumed_to(self._partition_records.next_fetch_offset)"),
    ),
    Name(
        f"{_FETCHER}:MemoryRecords",
        "replaced by KeptRecords",
        None,
        (f"{_FETCHER}:Fetcher._proc_fetch_request", "records = MemoryRecords(part_data[-1])"),
    ),
    Name(f"{_RECORDS}.next_batch", "overridden to keep the bytes of a batch", "self _min_slice _magic_offset"),
    Name(
        f"{_RECORDS}()._next_slice",
        "bytes of the next batch",
        None,
        (f"{_RECORDS}.next_batch", "next_slice = self._next_slice"),
    ),
    # clickhouse-driver's parts of an insert.
    Name(f"{_CLIENT}.disconnect_on_error", "connects, and disconnects after a failure", "self query settings"),
    Name(f"{_CLIENT}.receive_sample_block", "types of the columns", "self"),
    Name(f"{_CLIENT}.receive_profile_events", "between the blocks", "self"),
    Name(f"{_CLIENT}.receive_end_of_insert_query", "waits for the server's answer", "self"),
    Name(f"{_CONNECTION}.send_query", "the INSERT", "self query query_id params"),
    Name(f"{_CONNECTION}.send_external_tables", "ends the query", "self tables types_check"),
    Name(
        f"{_CONNECTION}._init_connection",
        "keeps the socket, which a thread shuts down, and what the server says of itself",
        "self host port",
        (f"{_CONNECTION}._init_connection", "self.socket = self._create_socket(host, port)"),
    ),
    Name(f"{_CONNECTION}.send_data", "the empty block", "self block table_name"),
    # Faust's app: what the environment would change behind the settings' back.
    Name("faust.app.base:STRICT", "a variable of the environment sets it; the worker sets it back"),
    Name(
        "faust.app.base:App._init_fixups",
        "would load Django for a variable of the environment",
        "self",
        ("faust.app.base:App.__init__", "self.fixups = self._init_fixups()"),
    ),
    Name(
        "faust.app.base:App._create_directories",
        "the name of a group isn't one of a directory",
        "self",
        ("faust.app.base:App.on_first_start", "self._create_directories()"),
    ),
    # confluent-kafka.
    Name(
        "confluent_kafka.schema_registry.common._httpx_compat:httpx",
        "the HTTP client that the registry's client chose, for its exceptions",
    ),
    *(
        Name(f"confluent_kafka:KafkaError.{code}", "code of librdkafka's own, documented with an underscore")
        for code in (
            "_ALL_BROKERS_DOWN",
            "_AUTHENTICATION",
            "_BAD_COMPRESSION",
            "_BAD_MSG",
            "_MSG_TIMED_OUT",
            "_PARTITION_EOF",
            "_QUEUE_FULL",
            "_SSL",
            "_TIMED_OUT",
            "_TRANSPORT",
            "_UNKNOWN_PARTITION",
            "_NOENT",
            "_UNKNOWN_TOPIC",
        )
    ),
]
