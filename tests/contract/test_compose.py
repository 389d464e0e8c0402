"""docker-compose.yml and the Dockerfile keep the promises of the documentation; no container engine is needed."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import env_name, env_names
from pipeline.forms import SECRETS_DIR

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = ("setup", "worker", "monitor")
SERVERS = ("kafka", "schema-registry", "clickhouse")
WATCHERS = ("prometheus", "grafana")
# Files that name settings for operators: compose file, image, deployment, documentation.
TEXTS = [
    path
    for pattern in ("docker-compose.yml", "Dockerfile", "*.md", "docs/**/*.md", "deploy/**/*", "Makefile")
    for path in sorted(ROOT.glob(pattern))
    if path.is_file()
]
ENV_NAMES = {*env_names(), SECRETS_DIR}


def _instructions() -> Iterator[tuple[str, str]]:
    """Yield instruction and arguments of each line of the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            instruction, _, arguments = line.partition(" ")
            yield instruction, arguments


def _of(instruction: str) -> list[str]:
    return [arguments for name, arguments in _instructions() if name == instruction]


def _environment(service: str) -> dict[str, str]:
    return {name: str(value) for name, value in SERVICES[service]["environment"].items()}


def _listeners(name: str) -> dict[str, str]:
    """Addresses by listener, from a setting of the broker."""
    return dict(entry.split("://") for entry in _environment("kafka")[name].split(","))


def test_services() -> None:
    """The services are the documented ones."""
    assert set(SERVICES) == {*SERVERS, *OWN, *WATCHERS}


@pytest.mark.parametrize("service", [*SERVERS, *WATCHERS])
def test_image_is_pinned(service: str) -> None:
    """The tag of a foreign image is a full version, so that every pull gives the same image."""
    assert re.fullmatch(r"[a-z-]+/[a-z-]+:v?\d+\.\d+\.\d+[.\d]*", SERVICES[service]["image"])


def test_base_image_is_pinned_and_slim() -> None:
    """The base of the worker's image has an exact Python version and is a slim variant."""
    bases = [base.split()[0] for base in _of("FROM")]
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-[a-z]+", bases[0])
    assert set(bases[1:]) == {"base"}


@pytest.mark.parametrize(
    ("service", "major", "minor"),
    [("kafka", 4, 0), ("schema-registry", 8, 0), ("clickhouse", 26, 3)],
)
def test_version_is_supported(service: str, major: int, minor: int) -> None:
    """No image is older than the oldest supported version."""
    version = SERVICES[service]["image"].partition(":")[2].split(".")
    assert (int(version[0]), int(version[1])) >= (major, minor)


@pytest.mark.parametrize(
    ("service", "ports"),
    [
        ("kafka", ["9092:9092"]),
        ("schema-registry", ["8081:8081"]),
        ("clickhouse", ["9000:9000", "8123:8123"]),
        ("worker", ["6066-6073:6066"]),
        ("monitor", ["6067:6067"]),
        ("prometheus", ["9090:9090"]),
        ("grafana", ["3000:3000"]),
        ("setup", []),
    ],
)
def test_ports(service: str, ports: list[str]) -> None:
    """Each service is published on its usual port, on the loopback interface only."""
    assert SERVICES[service].get("ports", []) == [f"127.0.0.1:{port}" for port in ports]


@pytest.mark.parametrize("service", [*SERVERS, *WATCHERS, "monitor"])
def test_server_has_a_healthcheck(service: str) -> None:
    """Each server has a healthcheck, and restarts after a crash."""
    assert SERVICES[service]["healthcheck"]["test"]
    assert SERVICES[service]["restart"] == "unless-stopped"


def test_worker_has_the_healthcheck_of_its_image() -> None:
    """The worker's healthcheck is declared once, in the image; only the one-shot setup has none."""
    assert len(_of("HEALTHCHECK")) == 1
    assert "healthcheck" not in SERVICES["worker"]
    assert SERVICES["setup"]["healthcheck"] == {"disable": True}


def test_healthcheck_fails_without_a_worker() -> None:
    """The image's healthcheck runs in its Python, and fails with one line where no worker listens."""
    command = yaml.safe_load(_of("HEALTHCHECK")[0].partition("CMD ")[2])
    assert command[0] == "python"
    nobody_listens = subprocess.run(
        [sys.executable, *command[1:]], env={env_name("worker", "web_port"): "1"}, capture_output=True, check=False
    )
    assert nobody_listens.returncode == 1
    assert nobody_listens.stderr.startswith(b"chimera: 127.0.0.1:1/live: ConnectionRefusedError")
    assert nobody_listens.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("service", "conditions"),
    [
        ("schema-registry", {"kafka": "service_healthy"}),
        ("setup", {"kafka": "service_healthy", "clickhouse": "service_healthy"}),
        (
            "worker",
            dict.fromkeys(SERVERS, "service_healthy") | {"setup": "service_completed_successfully"},
        ),
        ("monitor", {"setup": "service_completed_successfully"}),
        ("prometheus", {"monitor": "service_healthy"}),
        ("grafana", {"prometheus": "service_healthy", "clickhouse": "service_healthy"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_start_order(service: str, conditions: dict[str, str]) -> None:
    """A service starts when the services it needs are ready, not merely started."""
    assert {name: need["condition"] for name, need in SERVICES[service]["depends_on"].items()} == conditions


def test_topics_and_tables_are_set_up_once() -> None:
    """The setup creates topics and tables once."""
    assert SERVICES["setup"]["command"] == ["sh", "-c", "chimera topics apply --yes && chimera migrate"]
    assert SERVICES["setup"]["restart"] == "no"


def test_volumes_are_declared_and_used() -> None:
    """Servers store their data in named volumes, every declared volume is used, and mounted files are there."""
    volumes = [volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    used = {volume for volume in volumes if not volume.startswith("./")}  # the others are files of the project
    assert [volume for volume in volumes if volume.startswith("./") and not (ROOT / volume).exists()] == []
    assert used == set(COMPOSE["volumes"]) == {"kafka-data", "clickhouse-data", "prometheus-data", "grafana-data"}


def test_broker_stores_in_its_volume() -> None:
    """The broker's volume is mounted at its data directory."""
    assert SERVICES["kafka"]["volumes"] == [f"kafka-data:{_environment('kafka')['KAFKA_LOG_DIRS']}"]


def test_host_and_containers_reach_the_broker() -> None:
    """The broker advertises its name to containers and the published port to the host, each on an existing listener."""
    advertised = _listeners("KAFKA_ADVERTISED_LISTENERS")
    assert advertised["INTERNAL"] == _environment("worker")[env_name("kafka", "bootstrap_servers")]
    assert f"{advertised['EXTERNAL']}:9092" in SERVICES["kafka"]["ports"]
    listening = {name: address.rpartition(":")[2] for name, address in _listeners("KAFKA_LISTENERS").items()}
    assert {name: address.rpartition(":")[2] for name, address in advertised.items()}.items() <= listening.items()


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_of_settings_exist(path: Path) -> None:
    """Every CHIMERA_ variable in these files is a setting."""
    named = set(re.findall(r"CHIMERA_[A-Z0-9_]*[A-Z0-9]", path.read_text(encoding="utf-8")))
    assert named <= ENV_NAMES


@pytest.mark.parametrize("service", OWN)
def test_own_services_set_nothing_but_settings(service: str) -> None:
    """Setup and worker have the same environment, which consists of settings of the pipeline."""
    assert set(SERVICES[service]["environment"]) <= ENV_NAMES
    assert SERVICES[service]["environment"] == COMPOSE["x-chimera"]["environment"]


@pytest.mark.parametrize(
    ("service", "variable"),
    [("clickhouse", "CLICKHOUSE_PASSWORD"), ("worker", env_name("clickhouse", "password"))],
    ids=["server", "client"],
)
def test_password_is_required(service: str, variable: str) -> None:
    """The file holds no password; without one in the environment, compose refuses to start and names the variable."""
    assert _environment(service)[variable].startswith(f"${{{env_name('clickhouse', 'password')}:?set ")


def test_worker_is_not_root() -> None:
    """The image runs as a user of its own, and the worker can't gain rights."""
    stage = [name for name, _ in _instructions()]
    assert stage.index("USER") > len(stage) - stage[::-1].index("FROM") - 1
    assert _of("USER") == ["10001:10001"]
    for name in OWN:
        assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
        assert SERVICES[name]["cap_drop"] == ["ALL"]
        assert (SERVICES[name]["read_only"], SERVICES[name]["tmpfs"]) == (True, ["/tmp"])


def test_image_runs_the_worker() -> None:
    """The image runs the documented command as process 1, so that the worker gets the signals."""
    assert yaml.safe_load(_of("CMD")[0]) == ["faust", "-A", "pipeline", "worker", "-l", "info"]


def test_image_is_made_of_what_reaches_the_build() -> None:
    """The Dockerfile copies exactly the files that .dockerignore lets through, and all that the wheel includes."""
    copied = {name for arguments in _of("COPY") if "--from" not in arguments for name in arguments.split()[:-1]}
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert [name for name in included if not {name, *map(str, Path(name).parents)} & copied] == []
