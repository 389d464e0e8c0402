"""Workers with names whose release adds or drops a topic: Kafka would give them the assignment of the earlier one."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
import yaml
from support.events import events, rows
from support.processes import Worker, eventually, prepare

from pipeline.config import Settings, env_name
from pipeline.devstack.ports import free_port
from pipeline.producer.producer import Producer

pytestmark = pytest.mark.integration

_NAMES = "one", "two"
_FAMILY = "llm_events"


@pytest.fixture
def named(environ: dict[str, str]) -> dict[str, dict[str, str]]:
    """Environments of two workers, by name; the session lasts longer than the test waits for partitions."""
    session = {env_name("kafka", "session_timeout_seconds"): "120"}
    return {
        name: {
            **environ,
            **session,
            env_name("kafka", "instance_id"): name,
            env_name("worker", "web_port"): str(free_port()),
        }
        for name in _NAMES
    }


def _without_family(environ: Mapping[str, str], tmp_path: Path) -> dict[str, str]:
    """Return the environment of a release that lacks the family."""
    document = yaml.safe_load(Path(environ[env_name("topics", "file")]).read_text(encoding="utf-8"))
    document["topics"] = {name: of for name, of in document["topics"].items() if of.get("family") != _FAMILY}
    file, schemas = tmp_path / "without.yaml", tmp_path / "schemas"
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    shutil.copytree(
        Settings().schemas.directory, schemas, ignore=shutil.ignore_patterns(f"{_FAMILY}.*"), dirs_exist_ok=True
    )
    return {**environ, env_name("topics", "file"): str(file), env_name("schemas", "directory"): str(schemas)}


@contextmanager
def _running(environs: Mapping[str, Mapping[str, str]], directory: Path) -> Iterator[list[Worker]]:
    """Workers that all start at once; they are killed at the end, and stay members of their group."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(environ, directory / name)) for name, environ in environs.items()]
        for worker in workers:
            worker.wait_until_consuming()
        yield workers


def _holds(worker: Worker, partitions: int) -> bool:
    return f"partitions={partitions}" in worker.lines("consuming")[-1]


def _hold(workers: list[Worker], *partitions: int) -> None:
    """Wait until each worker says that it has this many partitions."""
    for worker, number in zip(workers, partitions, strict=True):
        eventually(partial(_holds, worker, number), f"{number} partitions")


def _store(settings: Settings, worker: Worker, count: int) -> None:
    """Produce events of the family, and wait until the workers have stored all of them."""
    with Producer(settings) as producer:
        for event in events(_FAMILY, count):
            producer.send(_FAMILY, event)
    worker.wait_for(lambda: len(rows(settings, _FAMILY)) >= count, "stored")


def test_a_release_that_adds_and_one_that_drops_a_topic_share_their_own_topics(
    settings: Settings, named: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """All workers restart within the session timeout, so that Kafka makes no new assignment by itself."""
    prepare(settings)
    without = {name: _without_family(environ, tmp_path) for name, environ in named.items()}
    with _running(without, tmp_path) as workers:
        _hold(workers, 5, 5)
    with _running(named, tmp_path) as workers:
        _hold(workers, 6, 6)
        _store(settings, workers[0], 100)
    with _running(without, tmp_path) as workers:
        _hold(workers, 5, 5)


def test_workers_that_get_a_new_topic_one_after_the_other_share_it(
    settings: Settings, named: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """The first one has the whole topic until the other one, to which Kafka gives its old partitions, joins again."""
    prepare(settings)
    with Worker(_without_family(named["one"], tmp_path), tmp_path / "one") as one:
        one.wait_until_consuming()
        with Worker(_without_family(named["two"], tmp_path), tmp_path / "two") as two:
            two.wait_until_consuming()
            _hold([one, two], 5, 5)
        with Worker(named["two"], tmp_path / "two") as two:
            two.wait_until_consuming()
            _hold([one, two], 5, 7)
            one.kill()
            with Worker(named["one"], tmp_path / "one") as again:
                again.wait_until_consuming()
                _store(settings, again, 200)
                for worker in (again, two):
                    consumed = worker.metric("chimera_records_consumed_total", family=_FAMILY)
                    assert 0 < consumed < 200, "each has a partition"
