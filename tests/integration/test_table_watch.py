"""Tables whose engine or deduplication window is altered under a running worker: it ends before it stores twice."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from clickhouse_driver import Client
from structlog.testing import capture_logs
from support.processes import PATIENCE_SECONDS, Worker, last_word, prepare

from pipeline.catalog import load_catalog
from pipeline.clickhouse.client import connect
from pipeline.config import Settings, env_name
from pipeline.devstack import Stack
from pipeline.devstack.ports import free_port
from pipeline.errors import ChimeraError, HaltError
from pipeline.worker.table_watch import TableWatch

pytestmark = pytest.mark.integration

_NO_WINDOW = "ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 0"
_WINDOW_MESSAGE = "non_replicated_deduplication_window is 0, expected at least"
_ENGINE_MESSAGE = "engine Memory: expected"


def _forget_tokens(client: Client, table: str) -> None:
    client.execute(f"CREATE TABLE other ENGINE=Memory AS SELECT * FROM {table}")
    client.execute(f"EXCHANGE TABLES {table} AND other")


def _watch(settings: Settings, partitions: int = 2, seconds: float = 0.05) -> TableWatch:
    return TableWatch(
        settings, load_catalog(settings), lambda topics: dict.fromkeys(topics, partitions), pause_seconds=seconds
    )


async def _halted(watch: TableWatch) -> ChimeraError:
    """Run the checks in the background until they halt; return the reason."""
    halted: asyncio.Future[ChimeraError] = asyncio.get_running_loop().create_future()

    def halt(error: ChimeraError) -> None:
        if not halted.done():
            halted.set_result(error)

    watching = asyncio.create_task(watch.run(halt))
    try:
        return await asyncio.wait_for(halted, PATIENCE_SECONDS)
    finally:
        watching.cancel()


@pytest.mark.parametrize("table", ["llm_events", "session_stats"])
@pytest.mark.parametrize("change", ["window", "engine"])
def test_an_altered_table_is_noticed(client: Client, settings: Settings, table: str, change: str) -> None:
    """By the checks in the background, with the message of the start."""
    watch = _watch(settings)
    asyncio.run(watch.check())
    if change == "window":
        client.execute(_NO_WINDOW.format(table=table))
    else:
        _forget_tokens(client, table)
    error = asyncio.run(_halted(watch))
    assert isinstance(error, HaltError)
    assert f"{settings.clickhouse.database}.{table} at " in str(error)
    assert (_WINDOW_MESSAGE if change == "window" else _ENGINE_MESSAGE) in str(error)


def test_a_topic_that_outgrows_its_window_is_logged_and_ends_nothing(client: Client, settings: Settings) -> None:
    """Once; a window that is narrowed afterwards, below what did at the start, halts all the same."""
    counts = iter([2, 1064, 1064, 1064])
    shares = list[Mapping[str, float]]()
    watch = TableWatch(
        settings, load_catalog(settings), lambda topics: dict.fromkeys(topics, next(counts)), share=shares.append
    )

    async def scenario() -> None:
        with capture_logs() as logged:
            for _ in range(3):
                await watch.check()
        assert shares[-1]["episodes"] == pytest.approx(400_000 / 1064), "the partitions that are there share a window"
        assert [line["log_level"] for line in logged] == ["warning"]
        assert "for 1064 partitions" in logged[0]["reason"]
        client.execute(_NO_WINDOW.format(table="episodes"))
        with pytest.raises(HaltError, match="for 2 partitions"):
            await watch.check()

    asyncio.run(scenario())


def test_a_silent_server_delays_a_takeover_for_a_while_only(client: Client, settings: Settings, stack: Stack) -> None:
    """Nothing can be inserted meanwhile; the check comes when the server answers again."""
    client.execute(_NO_WINDOW.format(table="episodes"))
    watch = TableWatch(settings, load_catalog(settings), lambda topics: dict.fromkeys(topics, 2), answer_seconds=0.2)

    async def scenario() -> ChimeraError:
        stack.clickhouse.pause()
        await watch.before_takeover()
        stack.clickhouse.resume()
        return await _halted(watch)

    assert _WINDOW_MESSAGE in str(asyncio.run(scenario()))


def test_a_running_worker_ends_when_a_table_forgets_its_tokens(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """Within a minute, without a rebalance."""
    prepare(settings)
    with Worker(environ, tmp_path / "log") as worker, connect(settings.clickhouse) as client:
        worker.wait_until_consuming()
        client.execute(_NO_WINDOW.format(table="ui_events"))
        assert _WINDOW_MESSAGE in last_word(worker, HaltError.exit_code)


def test_a_worker_takes_nothing_over_when_a_table_forgets_its_tokens(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """The inserts of the worker before it would be repeated on a table that doesn't know them."""
    prepare(settings)
    other = {**environ, env_name("worker", "web_port"): str(free_port())}
    with Worker(environ, tmp_path / "log") as worker, Worker(other, tmp_path / "other") as leaving:
        worker.wait_until_consuming()
        leaving.wait_until_consuming()
        worker.wait_for(lambda: worker.lines("partitions=6") and leaving.lines("partitions=6"), "shared")
        consuming = len(worker.lines("consuming"))
        with connect(settings.clickhouse) as client:
            _forget_tokens(client, "episodes")
        assert leaving.terminate() in {0, HaltError.exit_code}
        assert _ENGINE_MESSAGE in last_word(worker, HaltError.exit_code)
        assert len(worker.lines("consuming")) == consuming
