"""The files in deploy/: valid for Kubernetes, systemd and Prometheus, and in line with settings, topics and image."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

from pipeline.catalog import load_catalog
from pipeline.config import Settings, WorkerSettings, env_names
from pipeline.forms import SECRETS_DIR

ROOT = Path(__file__).parents[2]
_KUBERNETES = ROOT / "deploy/kubernetes"
_OVERLAY = _KUBERNETES / "overlays/production"
_OWN_SCHEMAS = {
    file.stem: json.loads(file.read_text(encoding="utf-8"))
    for file in (ROOT / "tests/fixtures/kubernetes").glob("*.json")
}
_UNITS = sorted((ROOT / "deploy/systemd").iterdir())
_STOP_SECONDS = WorkerSettings().drain_seconds + 3  # docs/configuration.md


def _documents() -> Iterator[dict[str, Any]]:
    """Yield each object of base and overlay, as written."""
    for file in sorted(_KUBERNETES.rglob("*.yaml")):
        if file.name != "kustomization.yaml":
            yield from yaml.safe_load_all(file.read_text(encoding="utf-8"))


_OBJECTS = {f"{each['kind']} {each['metadata']['name']}": each for each in _documents()}


def _pod(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the specification of a pod, and that of its container."""
    pod = _OBJECTS[f"Deployment {name}"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def _validate(document: dict[str, Any]) -> None:
    if own := _OWN_SCHEMAS.get(document["kind"]):
        Draft202012Validator(own).validate(document)
    else:
        for version in ("1.30", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("name", _OBJECTS)
def test_an_object_is_valid(name: str) -> None:
    """It has the form of Kubernetes from 1.30 on, or of its custom resource, and no unknown key."""
    _validate(_OBJECTS[name])


def _built(folder: Path) -> dict[str, dict[str, Any]]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl on this machine: it has kustomize in it")
    built = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return {f"{each['kind']} {each['metadata']['name']}": each for each in yaml.safe_load_all(built.stdout)}


@pytest.mark.parametrize("folder", [_KUBERNETES / "base", _OVERLAY], ids=["base", "production"])
def test_kustomize_builds_valid_objects(folder: Path) -> None:
    """Each object that `kubectl apply -k` would send is valid; pods find their ConfigMap, which has settings alone."""
    objects = _built(folder)
    for document in objects.values():
        _validate(document)
    (settings,) = (each for name, each in objects.items() if name.startswith("ConfigMap chimera-"))
    assert settings["data"].keys() <= {*env_names(), SECRETS_DIR}
    for name in ("chimera-worker", "chimera-monitor"):
        (container,) = objects[f"Deployment {name}"]["spec"]["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
    assert ("replicas" in objects["Deployment chimera-worker"]["spec"]) == (
        "ScaledObject chimera-worker" not in objects
    )


@pytest.mark.parametrize("name", ["chimera-worker", "chimera-monitor"])
def test_a_secret_has_settings_as_files(name: str) -> None:
    """Its keys are names of settings, it holds no secret, and the pod mounts it where the settings are read."""
    values = _OBJECTS[f"Secret {name}"]["stringData"]
    assert values.keys() <= set(env_names())
    assert not any(value for key, value in values.items() if key.endswith(("PASSWORD", "KEY")))
    pod, container = _pod(name)
    (volume,) = (each for each in pod["volumes"] if each["name"] == "secrets")
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "secrets")
    assert volume["secret"]["secretName"] == name
    base = yaml.safe_load((_KUBERNETES / "base/kustomization.yaml").read_text(encoding="utf-8"))
    assert f"{SECRETS_DIR}={mount['mountPath']}" in base["configMapGenerator"][0]["literals"]


@pytest.mark.parametrize(("name", "port"), [("chimera-worker", 6066), ("chimera-monitor", 6067)])
def test_a_pod_is_restricted_and_probed(name: str, port: int) -> None:
    """It is the image's user, changes nothing in its file system, and is restarted by /live alone."""
    pod, container = _pod(name)
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert user
    security = pod["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == (int(user[1]), int(user[2]))
    assert security["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["ports"] == [{"name": "http", "containerPort": port}]
    paths = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
    ready = "/ready" if name == "chimera-worker" else "/live"
    assert paths == {"startup": "/live", "liveness": "/live", "readiness": ready}
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


def test_a_stop_has_the_time_of_the_drain() -> None:
    """Kubernetes, systemd and compose kill no worker that still stores its rows."""
    pod, _ = _pod("chimera-worker")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    unit = _unit(ROOT / "deploy/systemd/chimera-worker@.service")
    graces = (pod["terminationGracePeriodSeconds"], int(unit["TimeoutStopSec"][0]))
    assert min(*graces, int(compose["services"]["worker"]["stop_grace_period"].removesuffix("s"))) >= 2 * _STOP_SECONDS


def test_the_autoscaler_knows_the_topics() -> None:
    """Each topic of a family has a trigger that counts partitions without commits; no worker would be idle."""
    families = load_catalog(Settings()).families
    spec = _OBJECTS["ScaledObject chimera-worker"]["spec"]
    triggers = [trigger["metadata"] for trigger in spec["triggers"]]
    assert {trigger["topic"] for trigger in triggers} == {family.topic.name for family in families}
    assert {(each["offsetResetPolicy"], each["allowIdleConsumers"]) for each in triggers} == {("earliest", "false")}
    assert {each["consumerGroup"] for each in triggers} == {Settings().kafka.group_id}
    assert spec["minReplicaCount"] <= spec["maxReplicaCount"] <= max(family.topic.partitions for family in families)


def _unit(file: Path) -> dict[str, list[str]]:
    lines = [line.partition("=") for line in file.read_text(encoding="utf-8").splitlines() if "=" in line]
    return {key: [value for name, _, value in lines if name == key] for key, _, _ in lines if not key.startswith("#")}


@pytest.mark.parametrize("file", _UNITS, ids=lambda file: file.name)
def test_a_unit_is_valid(file: Path, tmp_path: Path) -> None:
    """`systemd-analyze verify` finds no unknown key or value; settings have their names."""
    text = file.read_text(encoding="utf-8")
    assert set(re.findall(r"CHIMERA_\w+(?=[:=])", text)) <= {*env_names(), SECRETS_DIR}
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze on this machine")
    copy = tmp_path / file.name.replace("@", "@0")
    copy.write_text(re.sub("^ExecStart=.*", "ExecStart=/bin/true", text, flags=re.MULTILINE), encoding="utf-8")
    done = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if copy.name in line]
    assert complaints == []


def test_prometheus_reads_its_configuration(tmp_path: Path) -> None:
    """`promtool check config` accepts it, with the rules at the place where compose mounts them."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine: install Debian's package prometheus")
    text = (ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8")
    file = tmp_path / "prometheus.yml"
    file.write_text(text.replace("/etc/prometheus/alerts", str(ROOT / "alerts")), encoding="utf-8")
    done = subprocess.run([promtool, "check", "config", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout
