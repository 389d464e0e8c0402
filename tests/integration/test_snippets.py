"""Python and shell snippets of README.md and docs/, run on the test's own topics and tables."""

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from support.events import publish
from support.processes import Worker, lag, prepare
from support.snippets import Snippet, run_python, run_shell, snippets

from pipeline.catalog import Family
from pipeline.config import Settings, env_name
from pipeline.errors import UnavailableError

pytestmark = pytest.mark.integration

Shell = Callable[[str], "subprocess.CompletedProcess[str]"]
_EVENTS = 1000
_SOON = {env_name("rollup", "snapshot_seconds"): "5"}  # `chimera rollup` waits for a snapshot, a minute by default
_UNAVAILABLE = UnavailableError.exit_code
_UNKNOWN_SCHEMA = b"\xc3\x01" + b"12345678"

NOT_RUN = {
    r"(nohup |time )?make \S+.*": "make targets run the tests, the demo and the benchmarks",
    r"git (clone|push|tag) .*|cd \S+": "a clone or a change of the reader's own repository",
    r"\. \.venv/bin/activate|python3? -m venv .*": "the test runs in that environment already",
    r"(\S+ -m )?pip install .*|(\S+/)?pre-commit install.*": "changes the environment that the tests run in",
    r"eval \"\$\(chimera stack up .*\)\"|chimera stack (up|down|status).*": "test_devstack starts and stops stacks",
    r"chimera demo.*": "test_demo runs it",
    r"faust -A pipeline worker.*": "runs until it is stopped; the worker of this test is one",
    r"docker (build|compose) .*": "needs a container engine; tests/contract/test_compose.py checks the file",
    r".*\.env\b.*": "writes or reads a file with secrets beside the reader's docker-compose.yml",
    r"clickhouse-client .*|.*\| *clickhouse-client .*": "needs ClickHouse's own client",
    r"kafka-acls\.sh .*": "needs Kafka's own tools and a broker with ACLs; test_kafka_access sets these ACLs",
    r"kafka-(topics|configs|transactions)\.sh .*": "needs Kafka's own tools",
    r"(systemctl|journalctl|kubectl|timedatectl|curl http://worker\.example).*": "is for the reader's machines",
    r"(cp deploy/|install -D|/opt/chimera/).*": "is for the reader's machines",
    r"chimera (monitor|top|tap)\b(?!.*--no-follow).*": "runs until it is stopped; tests of their own run them",
    r"chimera (backup (restore|adopt|prune)|restore) .*": "needs the reader's backups; test_recovery has some",
    r"chimera status --url .*": "needs a monitor that runs; test_monitor asks one",
    r"chimera storage query --from-cold .*": "needs a table with a cold volume; test_storage has one",
    r"chimera family .*|\. families/env|.*\borders\b.*": "the reader's own family; test_evolution makes it",
    r"until curl .*|kill %1.*": "waits for the worker of the page, and ends it",
    r"chimera replay .*(--source-topic|--from-file) .*": "reads the reader's own; test_replay_sources does too",
    r"chimera dlq drop .*--execute": "asks on a terminal before it deletes; test_dlq_command answers the question",
}
"""Commands that aren't run, as patterns of the whole command, and the reason."""

PLACEHOLDERS = {
    "chimera.ui_events:3:41200": "{topic}:0:0",
    "--from 3:41000 --to 3:42000": "--from 0:41 --to 0:42",
    'hexdigest()))" ui_events.avro': 'hexdigest()))" examples/ui_events.jsonl',
    "events.jsonl --dry-run": "examples/ui_events.jsonl --dry-run",
    "> ui_events.dump": "> /dev/null",
    "> cost.csv": "> /dev/null",
    "export CHIMERA_REGISTRY__URL=http://127.0.0.1:8081": "",
}
"""Texts that stand for something of the reader's own, and the test's replacements."""

_RIGHT_TOO = (
    # The examples and the samples of a page overlap, so that some events come too late.
    (r"^chimera rollup verify.*$", r"\g<0> || [ $? -eq 1 ]"),
    (r"^chimera backup list$", r"\g<0> || [ $? -eq 1 ]"),  # there is none yet
    (r"^chimera status.*$", r"\g<0> || [ $? -eq 1 ]"),  # anything waits
    (r"^chimera storage plan.*$", r"\g<0> || [ $? -eq 2 ]"),  # there are changes to make
)
"""Commands, and a form of them that accepts another exit code than 0, because it is right too."""

SNIPPETS = list(snippets())
PAGES = sorted({snippet.page for snippet in SNIPPETS})


def _reason(command: str) -> str | None:
    """Reason why a command isn't run; None if it is run."""
    return next((reason for pattern, reason in NOT_RUN.items() if re.fullmatch(pattern, command)), None)


@pytest.fixture
def family(settings: Settings) -> Family:
    """Family whose first record becomes a dead letter."""
    family = prepare(settings).family("ui_events")
    publish(settings, family.topic.name, [_UNKNOWN_SCHEMA])
    return family


@pytest.fixture
def shell(environ: dict[str, str], commands: Path) -> Shell:
    """Run a shell command as a reader does."""
    return lambda command: run_shell(command, environ, commands)


@pytest.fixture
def worker(
    settings: Settings, family: Family, environ: dict[str, str], tmp_path: Path, shell: Shell
) -> Iterator[Worker]:
    """Worker that runs beside the snippets and has stored records of every partition of the family's topic."""
    with Worker(environ | _SOON, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        assert shell(f"chimera produce --sample {_EVENTS}").returncode == 0
        worker.wait_for(lambda: lag(settings, family.topic.name) == 0, "everything committed")
        yield worker


@pytest.mark.parametrize("page", PAGES)
def test_snippets_run(page: str, family: Family, worker: Worker, environ: Mapping[str, str], shell: Shell) -> None:
    """Every snippet of a page runs without an error, in the order of the page."""
    for snippet in (each for each in SNIPPETS if each.page == page):
        text = _filled(snippet, family)
        if "chimera rollup" in text:
            _wait_for_the_rollup(worker, shell)
        done = run_python(text, environ) if snippet.language == "python" else shell(text)
        assert done.returncode == 0, f"{snippet.name}\n{text}\n{done.stdout}{done.stderr}"


def test_snippets_are_found_and_most_commands_run() -> None:
    """A runner that finds nothing would pass."""
    commands = [command for snippet in SNIPPETS if snippet.language == "sh" for command in snippet.commands]
    assert {snippet.language for snippet in SNIPPETS} == {"python", "sh"}
    assert sum(_reason(command) is None for command in commands) > len(commands) / 2


def _wait_for_the_rollup(worker: Worker, shell: Shell) -> None:
    """Wait until `chimera rollup verify` finds that the worker has caught up."""
    worker.wait_for(lambda: shell("chimera rollup verify").returncode != _UNAVAILABLE, "rollup caught up")


def _filled(snippet: Snippet, family: Family) -> str:
    """Text to run: placeholders filled, and without the commands that aren't run."""
    text = snippet.text
    if snippet.language == "sh":
        commands = (command for command in snippet.commands if _reason(command) is None)
        text = "\n".join(commands)
        for pattern, accepting in _RIGHT_TOO:
            text = re.sub(pattern, accepting, text, flags=re.MULTILINE)
    for placeholder, filling in PLACEHOLDERS.items():
        text = text.replace(placeholder, filling.format(topic=family.topic.name))
    return text
