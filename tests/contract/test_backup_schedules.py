"""Schedules in deploy/backup and commands in docs/backup.md: they parse, and the commands in them exist."""

import ast
import configparser
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import click
import pytest
import yaml

from pipeline.cli import cli

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/backup"
_UNITS = sorted([*FOLDER.glob("*.service"), *FOLDER.glob("*.timer")])


def _unit(file: Path) -> dict[str, list[str]]:
    """Values of a unit's keys; a key may have several."""
    sections = configparser.RawConfigParser(strict=False, delimiters="=", comment_prefixes="#")
    sections.optionxform = str  # type: ignore[assignment,method-assign] # as the module's documentation does it
    sections.read_string(file.read_text(encoding="utf-8"))
    assert sections.sections()[0] == "Unit"
    lines = [line.partition("=") for line in file.read_text(encoding="utf-8").splitlines() if "=" in line]
    return {key: [value for name, _, value in lines if name == key] for key, _, _ in lines if not key.startswith("#")}


def _commands() -> Iterator[tuple[str, str]]:
    """Each command, with the file that it is in."""
    for file in _UNITS:
        for command in _unit(file).get("ExecStart", ()):
            for kind in ("full", "incremental") if "%i" in command else ("",):
                yield file.name, command.replace("%i", kind).replace("/opt/chimera/bin/", "")
    for node in ast.walk(ast.parse((FOLDER / "airflow_dag.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("chimera "):
            yield "airflow_dag.py", node.value
    yield from _commands_of_pods()
    yield from _commands_of_the_page()


def _commands_of_pods() -> Iterator[tuple[str, str]]:
    for job in yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8")):
        pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            yield "kubernetes.yaml", shlex.join(container["command"])


def _commands_of_the_page() -> Iterator[tuple[str, str]]:
    text = (ROOT / "docs/backup.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("chimera "):
                yield "docs/backup.md", line.partition("#")[0]


@pytest.mark.parametrize(("place", "line"), sorted(set(_commands())))
def test_a_scheduled_command_exists(place: str, line: str) -> None:
    """Each word of it is a command, an option or a value that `chimera` takes."""
    _, *words = shlex.split(line)
    command: click.Command = cli
    context = click.Context(cli, info_name=place)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found
    command.make_context(command.name, words, parent=context)  # reads the options, and runs nothing


def test_each_timer_starts_a_service_that_is_there() -> None:
    """A timer names its service, or has its name."""
    timers = [file for file in _UNITS if file.suffix == ".timer"]
    assert timers
    for timer in timers:
        (service,) = _unit(timer).get("Unit", [f"{timer.stem}.service"])
        assert (FOLDER / re.sub("@.*", "@.service", service)).exists() or (FOLDER / service).exists()


def test_the_servers_configuration_allows_the_disk_that_is_the_default() -> None:
    """The setting's default, the disk and the allowed disk have one name."""
    root = ET.parse(FOLDER / "clickhouse.xml").getroot()
    assert root.findtext("backups/allowed_disk") == "backups"
    assert root.find("storage_configuration/disks/backups/path") is not None
