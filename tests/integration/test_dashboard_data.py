"""The dashboards on real servers: each expression has data from a real worker and monitor, and each SQL runs."""

import http
import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from clickhouse_driver import Client
from support.dashboards import ROOT, expressions, statements
from support.events import events, publish, settled
from support.monitors import running_monitor
from support.processes import Worker, eventually, prepare

from pipeline.config import Settings, env_name
from pipeline.devstack.ports import free_port
from pipeline.producer.producer import Producer

pytestmark = pytest.mark.integration


class _Prometheus:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def healthy(self) -> bool:
        """Ask the address that the health check of the compose file asks."""
        service = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["prometheus"]
        address = service["healthcheck"]["test"][-1].replace("http://127.0.0.1:9090", self.url)
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return bool(answer.status == http.HTTPStatus.OK)
        except OSError:
            return False

    def has_data(self, expression: str) -> bool:
        """Return True if the expression has a sample now."""
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{query}", timeout=20) as answer:
            return bool(json.load(answer)["data"]["result"])


@contextmanager
def _prometheus(folder: Path, **targets: int) -> Iterator[_Prometheus]:
    """Run Prometheus with the alerts; it scrapes these ports each second, each under the job of its name."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus on this machine: install Debian's package prometheus")
    jobs = [
        {"job_name": f"chimera-{name}", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        for name, port in targets.items()
    ]
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ROOT / "alerts/*.yml")],
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    port = free_port()
    command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (
        (folder / "prometheus.log").open("wb") as log,
        subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=log) as process,
    ):
        try:
            prometheus = _Prometheus(port)
            eventually(prometheus.healthy, "Prometheus is healthy")
            yield prometheus
        finally:
            process.terminate()


def test_each_expression_has_data(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """A worker that stores and rejects records, and a monitor, give every panel of the pipeline a sample."""
    catalog = prepare(settings)
    family = catalog.family("ui_events")
    environ = environ | {env_name("rollup", "snapshot_seconds"): "1"}
    web_port = int(environ[env_name("worker", "web_port")])
    with (
        Worker(environ, tmp_path / "log") as worker,
        running_monitor(environ) as monitor,
        _prometheus(tmp_path, worker=web_port, monitor=monitor.port) as prometheus,
    ):
        worker.wait_until_consuming()
        with Producer(settings) as producer:
            for event in events("ui_events", 50):
                producer.send("ui_events", event)
        publish(settings, family.topic.name, [b"neither framing"])
        settled(worker, settings, family, 51)
        for title, expression in expressions():
            worker.wait_for(lambda: prometheus.has_data(expression), f"{title}: {expression}")  # noqa: B023 (called now)


def test_each_statement_runs(client: Client) -> None:
    """ClickHouse answers each query of the tables' panels, also over empty tables."""
    for title, statement in statements():
        _, columns = client.execute(statement, with_column_types=True)
        assert columns, title
