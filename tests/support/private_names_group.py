"""Names of libraries that joining a group and sharing its partitions use; part of `support.private_names`."""

from support.private_name import Name

_BASE = "aiokafka.consumer.group_coordinator:BaseCoordinator"
_GROUP = "aiokafka.consumer.group_coordinator:GroupCoordinator"
_ADMIN = "aiokafka.admin:AIOKafkaAdminClient"
_ASSIGNOR = "faust.assignor:PartitionAssignor"

GROUP_NAMES = [
    Name(
        f"{_GROUP}._do_heartbeat",
        "its warning of an ordinary rebalance is dropped by `pipeline.logs`",
        "self",
        (f"{_GROUP}._do_heartbeat", '"Heartbeat failed for group %s because it is rebalancing", self.group_id'),
    ),
    Name(
        f"{_GROUP}._send_req",
        "replaced to see each answer of the coordinator first",
        "self request",
        (
            "aiokafka.consumer.group_coordinator:CoordinatorGroupRebalance.perform_group_join",
            "response = await self._coordinator._send_req(request)\n                except Errors.KafkaError:",
        ),
    ),
    Name(
        f"{_GROUP}._push_error_to_user",
        "replaced, because nobody would ask for the error",
        "self exc",
        (f"{_GROUP}._GroupCoordinator__coordination_routine", "await self._push_error_to_user(exc)"),
    ),
    Name(
        f"{_ADMIN}._send_request",
        "reads the commits of a group with their answer's error, which list_consumer_group_offsets overlooks",
        "self request node_id",
        (f"{_ADMIN}.list_consumer_group_offsets", "await self._send_request(request, group_coordinator_id)"),
    ),
    Name(f"{_GROUP}.reset_generation", "begins a new membership", "self"),
    Name(f"{_GROUP}()._closing", "ends a pause when the consumer stops"),
    Name(f"{_GROUP}()._coordination_task", "tells when aiokafka has stopped coordinating"),
    Name(f"{_GROUP}()._group_instance_id", "name of a static member"),
    Name(f"{_GROUP}()._subscription", "topics that this worker subscribes to"),
    Name(
        f"{_GROUP}()._assignors",
        "take an assignment that isn't carried out into the next request to join",
        None,
        (f"{_GROUP}._do_rejoin_group", "self._assignors,"),
    ),
    Name(
        f"{_GROUP}()._group_subscription",
        "set again when the leader comes back: the topics that it watches",
        None,
        (f"{_BASE}._handle_metadata_update", "self._group_subscription is not None"),
    ),
    Name(
        f"{_BASE}()._metadata_snapshot",
        "set again likewise: the partitions that it knows",
        None,
        (f"{_BASE}._handle_metadata_update", "if self._metadata_snapshot != metadata_snapshot:"),
    ),
    # Requests of aiokafka's that are sent in a version that names the instance.
    *(
        Name(f"aiokafka.protocol.{name}", "sent in a version that names the instance")
        for name in (
            "group:HeartbeatRequest()._group",
            "group:HeartbeatRequest()._generation_id",
            "group:HeartbeatRequest()._member_id",
            "commit:OffsetCommitRequest()._consumer_group",
            "commit:OffsetCommitRequest()._consumer_group_generation_id",
            "commit:OffsetCommitRequest()._consumer_id",
            "commit:OffsetCommitRequest()._topics",
        )
    ),
    # Faust's assignor.
    *(
        Name(f"{_ASSIGNOR}.{name}", "makes an assignment, in Faust's form", parameters)
        for name, parameters in (
            ("_get_client_metadata", "metadata"),
            ("_update_member_urls", "self clients_metadata"),
            ("_get_changelog_distribution", "self assignments"),
            ("_get_external_topic_distribution", "self assignments"),
            ("_protocol_assignments", "self assignments cl_distribution tp_distribution topic_groups"),
            ("_compress", "raw"),
            ("_decompress", "compressed"),
        )
    ),
    Name(f"{_ASSIGNOR}._url", "address that an assignment must be for"),
    Name(
        f"{_ASSIGNOR}._perform_assignment",
        "replaced: shares that are even over all topics",
        "self cluster member_metadata",
        (f"{_ASSIGNOR}._assign", "self._perform_assignment(cluster, member_metadata)"),
    ),
]
