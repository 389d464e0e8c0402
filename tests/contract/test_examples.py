"""The examples: every family has some, the worker accepts them, and they refer to each other."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.catalog import load_catalog
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.producer.encode import Encoder

FAMILIES = {family.name: family for family in load_catalog(Settings()).families}
DIRECTORY = Path(__file__).parents[2] / "examples"


def examples(family: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (DIRECTORY / f"{family}.jsonl").read_bytes().splitlines()]


def test_every_family_has_examples_and_every_file_a_family() -> None:
    """Each family has a file of examples, and each file a family."""
    assert {file.name for file in DIRECTORY.iterdir()} == {f"{name}.jsonl" for name in FAMILIES}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_worker_takes_the_examples(name: str) -> None:
    """Every example is encoded and becomes a row; none is rejected."""
    encoder = Encoder(FAMILIES[name])
    values = [encoder.encode(event).value for event in examples(name)]
    rows = Decoder(FAMILIES[name]).decode(values)
    assert 3 <= len(rows) == len(values)


@pytest.mark.parametrize("name", FAMILIES)
def test_examples_show_every_field(name: str) -> None:
    """Every example sets every field, so that the examples are a complete reference."""
    for event in examples(name):
        assert event.keys() == FAMILIES[name].schema.by_name.keys()


def test_examples_show_every_value_of_the_closed_sets() -> None:
    """Every value of a closed set occurs in an example."""
    for name, family in FAMILIES.items():
        for field in family.schema.fields:
            if field.values:
                unseen = set(field.values) - {event[field.name] for event in examples(name)}
                assert not unseen, f"{name}.{field.name}"


def test_examples_refer_to_each_other() -> None:
    """Runs, calls, episodes and deployments join as in the specification."""
    ids = {name: {event.get("run_id") for event in examples(name)} for name in FAMILIES}
    assert ids["episodes"] <= ids["watcher_runs"]
    assert {event["episode_run_id"] for event in examples("deployments")} <= ids["episodes"]
    assert ids["llm_events"] <= ids["watcher_runs"] | ids["bench_runs"]
    commits = {event["hearts_commit"] for event in examples("watcher_runs")}
    assert {event["commit_sha"] for event in examples("bench_runs")} <= commits
