"""Profiles and row policies of the server: they don't change what is stored or seen, or the worker refuses them."""

import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from click.testing import CliRunner
from clickhouse_driver.errors import ServerException
from support.clickhouse_profiles import Account, ProfiledServer
from support.events import events
from support.processes import Worker, last_word, prepare

from pipeline.catalog import Family, load_catalog
from pipeline.cli.rollup import rollup
from pipeline.clickhouse.client import LOOKUP_SETTINGS, connect
from pipeline.clickhouse.coordinates import Source
from pipeline.clickhouse.migrate import migrate
from pipeline.clickhouse.pinned_settings import INSERT_SETTINGS, check_user
from pipeline.clickhouse.row_policies import check_row_policies
from pipeline.clickhouse.session_stats import COLUMNS, TABLE
from pipeline.clickhouse.sink import Sink
from pipeline.columns import Column
from pipeline.config import Settings, env_name
from pipeline.decode.decoder import Decoder
from pipeline.errors import HaltError
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration

_DATABASE = "chimera_metrics"
_PINNED = {**INSERT_SETTINGS, **LOOKUP_SETTINGS}
_OVERFLOWS = {name: "break" for name in LOOKUP_SETTINGS if re.search("overflow_mode", name)} | {
    "group_by_overflow_mode": "any"
}
# A value of each pinned setting that a profile may have.
_HOSTILE: dict[str, str | int] = {
    **_OVERFLOWS,
    "input_format_defaults_for_omitted_fields": 0,
    "use_strict_insert_block_limits": 1,
    "optimize_on_insert": 0,
    "max_partitions_per_insert_block": 1,
    "insert_allow_materialized_columns": 0,
    "async_insert": 1,
    "insert_deduplicate": 0,
    "deduplicate_insert": "disable",
    "deduplicate_blocks_in_dependent_materialized_views": 0,
    "receive_timeout": 3_000,
    "additional_table_filters": f"{{'{_DATABASE}.ui_events': 'latency_ms < 0', '{_DATABASE}.{TABLE}': 'hour < 0'}}",
    "additional_result_filter": "0",
    "filter": "0",
    "limit": 1,
    "offset": 1,
    "use_query_cache": 1,
    "apply_deleted_mask": 0,
    "apply_patch_parts": 0,
    "ignore_cold_parts_seconds": 1000,
    "enable_parallel_replicas": 1,
    "parallel_replicas_custom_key": "cityHash64(session_id)",
    "partial_result_on_first_cancel": 1,
    "dialect": "prql",
    "session_timezone": "Pacific/Auckland",
    "final": 1,
    "extremes": 1,
    "implicit_table_at_top_level": f"{_DATABASE}.ui_events",
    "implicit_transaction": 1,
    "aggregate_functions_null_for_empty": 1,
    "join_use_nulls": 1,
    "group_by_use_nulls": 1,
    "join_default_strictness": "ANY",
    "prefer_column_name_to_alias": 1,
    "force_primary_key": 1,
    "force_index_by_date": 1,
    "force_optimize_projection": 1,
    "run_query_in_background": 1,
    "send_profile_events": 0,
    "low_cardinality_allow_in_native_format": 0,
    "input_format_native_decode_types_in_binary_format": 1,
    "output_format_native_encode_types_in_binary_format": 1,
}
# What makes the hostile value take effect.
_WITH: dict[str, dict[str, str | int]] = {
    **{
        name: {"max_rows_to_read": 1, "max_block_size": 1} for name in ("read_overflow_mode", "read_overflow_mode_leaf")
    },
    "use_strict_insert_block_limits": {"max_insert_block_size": 2, "min_insert_block_size_rows": 1},
    "set_overflow_mode": {"max_rows_in_set": 1},
    "use_query_cache": {"query_cache_min_query_duration": 0},
    "deduplicate_insert": {"insert_deduplicate": 1},
    "dialect": {"allow_experimental_prql_dialect": 1},
    "enable_parallel_replicas": {"max_parallel_replicas": 3},
    "extremes": {"max_block_size": 1},
}
# A cut result must be a failure for these: the worker tries again, or halts with the server's words.
_REFUSED = {"read_overflow_mode": 158, "read_overflow_mode_leaf": 158, "set_overflow_mode": 191}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProfiledServer]:
    """Server with a user for each hostile value, one whose rows are hidden, and others that may change nothing."""
    accounts = [Account(name, {**_WITH.get(name, {}), name: value}) for name, value in _HOSTILE.items()]
    tables = [f"{_DATABASE}.{table}" for table in ("ui_events", TABLE)]
    accounts += [
        *(Account(f"blind_{table.split('.')[1]}", filters={table: "0"}) for table in tables),
        Account("compatible", {"compatibility": "21.3"}),
        Account("constant", {"deduplicate_insert": "disable"}, constants=("deduplicate_insert",)),
        Account("readonly_1", {"readonly": 1}),
        Account("readonly_2", {"readonly": 2}),
    ]
    with ProfiledServer(tmp_path_factory.mktemp("clickhouse"), *accounts) as running:
        migrate(running.settings_of("default", _DATABASE))
        yield running


@pytest.fixture
def family(server: ProfiledServer) -> Iterator[Family]:
    with connect(server.settings_of("default", _DATABASE)) as client:
        for table in ("ui_events", TABLE):
            client.execute(f"TRUNCATE TABLE {table}")
        yield load_catalog(Settings()).family("ui_events")


def _events(family: Family) -> dict[str, Column]:
    """Events of two days, with coordinates."""
    encoder = Encoder(family)
    columns = dict(Decoder(family).decode([encoder.encode(event).value for event in events(family.name, 8)]).columns)
    times = np.asarray(columns["ts"]) + np.arange(8) % 2 * 86_400_000
    return {**columns, **Source(UUID(int=7), 1).columns(np.arange(8)), "ts": times}


def _sessions() -> dict[str, Column]:
    """Two rows of an hour of session_stats."""
    values = {name: np.ones(2, np.float32 if kind == "Float32" else np.int64) for name, kind in COLUMNS.items()}
    return {**values, "hour": np.full(2, 3600, np.uint32), "session_id": np.array([b"a" * 16, b"b" * 16], "V16")}


def _count(server: ProfiledServer, table: str) -> int:
    with connect(server.settings_of("default", _DATABASE)) as client:
        return int(client.execute(f"SELECT count() FROM {table}")[0][0])


def test_every_pinned_setting_has_a_hostile_value() -> None:
    """The test below tries each setting that queries send."""
    assert _HOSTILE.keys() == _PINNED.keys()
    assert not [name for name in _HOSTILE if str(_HOSTILE[name]) == str(_PINNED[name])]


@pytest.mark.parametrize("user", [*(name for name in _HOSTILE if name not in _REFUSED), "compatible"])
def test_a_profile_changes_nothing(server: ProfiledServer, family: Family, user: str) -> None:
    """A repeated insert is stored once and a look-up sees all rows, whatever the user's profile says."""
    settings = server.settings_of(user, _DATABASE)
    check_user(settings)
    check_row_policies(settings, ["ui_events", TABLE])
    sink, rows, sessions = Sink(settings), _events(family), _sessions()
    try:
        assert sink.missing_rows("ui_events", family.key, rows, tried=True).all()
        assert sink.stored_sessions(TABLE, 3600) == frozenset()
        for _ in range(2):
            sink.insert("ui_events", rows, "token")
            sink.insert(TABLE, sessions, "token")
        assert not sink.missing_rows("ui_events", family.key, rows, tried=True).any()
        assert sink.stored_sessions(TABLE, 3600) == {b"a" * 16, b"b" * 16}
        assert sink.refusal_code("ui_events", rows) is None
    finally:
        sink.close()
    assert (_count(server, "ui_events"), _count(server, TABLE)) == (8, 2)
    with connect(server.settings_of("default", _DATABASE)) as client:
        ours = f"active AND database = currentDatabase() AND table = '{TABLE}'"
        partitions = client.execute(f"SELECT DISTINCT partition FROM system.parts WHERE {ours}")
    assert partitions == [("1970-01-01",)]


@pytest.mark.parametrize(("user", "code"), _REFUSED.items())
def test_a_cut_result_is_a_failure(server: ProfiledServer, family: Family, user: str, code: int) -> None:
    """A look-up that reaches a limit of the profile fails instead of missing rows."""
    sink, rows = Sink(server.settings_of(user, _DATABASE)), _events(family)
    others = {**rows, **Source(UUID(int=8), 1).columns(np.arange(8))}
    try:
        sink.insert("ui_events", rows, "token")
        with pytest.raises(ServerException) as failure:
            sink.missing_rows("ui_events", family.key, others, tried=True)
    finally:
        sink.close()
    assert failure.value.code == code
    assert _count(server, "ui_events") == 8


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        pytest.param("constant", "deduplicate_insert", id="setting that can't be changed"),
        pytest.param("readonly_1", r"'readonly_1' is read-only \(setting readonly is 1\)", id="readonly 1"),
        pytest.param("readonly_2", r"'readonly_2' is read-only \(setting readonly is 2\)", id="readonly 2"),
    ],
)
def test_a_user_who_may_not_change_a_pinned_setting_is_refused(
    server: ProfiledServer, user: str, expected: str
) -> None:
    """The worker doesn't start, and names the setting."""
    with pytest.raises(HaltError, match=expected):
        check_user(server.settings_of(user, _DATABASE))


@pytest.mark.parametrize("table", ["ui_events", TABLE])
def test_hidden_rows_are_not_taken_for_missing(server: ProfiledServer, family: Family, table: str) -> None:
    """A row policy is refused at the start, and by each look-up that it could deceive."""
    settings = server.settings_of(f"blind_{table}", _DATABASE)
    sink, columns = Sink(settings), _events(family) if table == "ui_events" else _sessions()
    message = f"table {table}: a row policy hides rows"

    def look(sink: Sink) -> None:
        if table == TABLE:
            sink.stored_sessions(table, 3600)
        else:
            sink.missing_rows(table, family.key, columns, tried=True)

    try:
        sink.insert(table, columns, "token")
        with pytest.raises(HaltError, match=message):
            check_row_policies(settings, ["episodes", table])
        with pytest.raises(HaltError, match=message):
            look(sink)
    finally:
        sink.close()
    assert _count(server, table) == len(columns["session_id"])


def test_a_worker_that_is_blind_does_not_start(
    settings: Settings, environ: dict[str, str], server: ProfiledServer, family: Family, tmp_path: Path
) -> None:
    """The message names table and cause; nothing is stored."""
    prepare(settings)
    Sink(server.settings_of("default", _DATABASE)).insert("ui_events", _events(family), "token")
    login = {"port": str(server.port), "user": "blind_ui_events", "password": "", "database": _DATABASE}
    blind = environ | {env_name("clickhouse", key): value for key, value in login.items()}
    with Worker(blind, tmp_path / "log") as worker:
        assert "table ui_events: a row policy hides rows" in last_word(worker, HaltError.exit_code)
    assert _count(server, "ui_events") == 8


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("table", ["ui_events", TABLE])
def test_a_user_who_is_blind_neither_verifies_nor_repairs(
    monkeypatch: pytest.MonkeyPatch, server: ProfiledServer, family: Family, table: str
) -> None:
    """Events that the user can't see would make right rows wrong, and a repair would drop them."""
    columns = _events(family) if table == "ui_events" else _sessions()
    Sink(server.settings_of("default", _DATABASE)).insert(table, columns, "token")
    for key, value in {"port": str(server.port), "user": f"blind_{table}", "database": _DATABASE}.items():
        monkeypatch.setenv(env_name("clickhouse", key), value)
    for command in (["verify"], ["repair", "--day=1970-01-01", "--execute"]):
        with pytest.raises(HaltError, match=f"table {table}: a row policy hides rows"):
            CliRunner().invoke(rollup, command, catch_exceptions=False)


# Names of settings that may change what an insert stores or what a look-up sees.
_SUSPECT = re.compile(
    r"insert|dedup|overflow_mode|^limit$|^offset$|filter|^final$|row_policy|deleted_mask|^apply_|patch_part|sequential|"
    r"^(?!skip_download)\w*query_cache$|cold_parts|parallel_replicas|partial_result|dialect$|timezone$|extremes|implicit_|"
    r"null|^force_|native_(de|en)code|low_cardinality_allow|block_size|max_partitions|readonly|default_strictness|"
    r"snapshot|consistency|stale|skip_unavailable|transaction"
)
_OTHER_SOURCES = (
    r"(azure|s3|s3queue|hdfs|iceberg|delta_lake|paimon|hive|mysql|mongodb|postgresql|sqlite|odbc|kafka|rabbitmq|"
    r"engine_(file|url)|distributed|live_view|max_live_view|stream_like|table_engine|file_like|parquet|arrow|orc)_.*"
)
_OTHER_FORMATS = (
    r"(input|output)_format_(?!native|defaults)\w+|format_\w+|input_format_native_allow_types_conversion|"
    r"output_format_native_(use_flattened|write_json)\w*|type_json_\w+|schema_inference_\w+|http_\w+"
)
# Suspects that are left to the server, by the reason; each pattern is a whole name.
_HARMLESS = {
    "tables of other engines are refused": (_OTHER_SOURCES,),
    "the driver sends blocks, no text": (_OTHER_FORMATS, r"\w*settings_after_format\w*", r"cancel_http_\w+"),
    "inserts are synchronous": (r"(wait_for_)?async_insert_?\w*", r"throw_if_deduplication_in_dependent\w+"),
    "it changes rows of views, not of the table": (
        r"\w*materialized_view\w*",
        r"use_async_executor_for_m\w+",
        r"wait_for_part_commit_in_dependent_\w+",
    ),
    "what is refused is tried again, or stops the worker": (
        r"insert_(quorum|keeper|shard|distributed)\w*",
        r"\w*fault_injection\w*",
        r"\w+_to_(delay|throw|perform)_insert",
        r"throw_(on_max_partitions|if_no_data|on_unsupported_query)\w+",
        r"force_data_skipping_indices|force_optimize_projection_name|max_partitions_to_read",
    ),
    "only with use_strict_insert_block_limits": (r"(max|min)_insert_block_size\w*|max_insert_(threads|delayed)\w*",),
    "inserts of blocks don't use it": (
        r"insert_(deduplication_token|null_as_default)",
        r"\w*insert_select\w*|\w*_on_insert|materialize_statistics\w*|\w*insertion_table\w*|send_table_structure\w*",
        r"(except|intersect|union)_default_mode|implicit_select",
    ),
    "it allows, and changes nothing": (
        r"allow_(experimental_)?(insert_into|expire_snap|nullable_tuple|\w*dialect|query_|time_|\w*timezone_arg)\w*",
    ),
    "only with dialect or the query cache": (
        r"(enable|polyglot)_?\w*dialect",
        r"query_cache\w*|enable_\w+_query_cache",
    ),
    "only with enable_parallel_replicas": (r"(automatic_|allow_\w*|cluster_for_|max_)?parallel_replicas?\w*",),
    "the result is the same": (
        r"(query_plan|optimize|join_runtime|join_algorithm|vector_search|enable_join_runtime|secondary_indices)_\w*",
        r"use_\w*dynamic\w*|allow_key_condition\w*|\w*text_index\w*|\w*filtered_ratio\w*|\w*bloom_filter\w*",
        r"force_(aggregat|creating|distinct|window|grouping|read_thr|write_thr|remove_data|optimize_skip)\w*",
        r"(max|min|preferred)_\w*block_size\w*|page_cache_\w+|reader_executor\w*|webassembly\w*",
        r"apply_(prewhere_after_final|row_policy_after_final|settings_from_server|patch_parts_join\w+)",
        r"enable_shared_storage_snapshot\w*",
    ),
    "rows that are being deleted may be seen or not": (r"apply_mutations_on_fly",),
    "a replica catches up before a look-up": (
        r"(select|update)_sequential\w*|shared_merge_tree_seq\w*|\w*stale_replicas\w*",
        r"\w*skip_unavailable_shards\w*",
    ),
    "no column is nullable": (
        r"\w*as_null\w*|\w*nulls?_(for|legacy)\w*|\w*default_nullable|cast_keep_nullable|transform_null_in",
        r"(least|external_table|restore|short_circuit|function_json|array|make)_\w*null\w*|\w*nullable_tuple\w*",
    ),
    "queries of backups, copies and mutations": (r"\w*snapshots?\w*|alter_\w*|lightweight_\w*|mutations_\w*",),
    "the user of the worker isn't read-only": (r"readonly",),
}


def test_no_setting_of_the_server_is_overlooked(server: ProfiledServer) -> None:
    """Each setting whose name suggests that it changes inserts or look-ups is pinned, or harmless for a reason."""
    with connect(server.settings_of("default", _DATABASE)) as client:
        names = {name for (name,) in client.execute("SELECT name FROM system.settings")}
    harmless = re.compile("|".join(pattern for patterns in _HARMLESS.values() for pattern in patterns))
    overlooked = [
        name for name in names if _SUSPECT.search(name) and name not in _PINNED and not harmless.fullmatch(name)
    ]
    assert " ".join(sorted(overlooked)) == ""


def test_the_server_knows_the_pinned_settings(server: ProfiledServer) -> None:
    """A misspelt setting would be ignored."""
    with connect(server.settings_of("default", _DATABASE)) as client:
        names = {name for (name,) in client.execute("SELECT name FROM system.settings")}
    assert set(_PINNED) <= names
