"""`chimera stack`: run a Kafka broker and a ClickHouse server on this machine."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import orjson
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from pipeline.cli.groups import Group
from pipeline.cli.terminal import terminal
from pipeline.devstack import Server, Stack, demo_processes, jars
from pipeline.devstack.extra import check_installed, require
from pipeline.devstack.lock import holder
from pipeline.devstack.ports import HOST
from pipeline.devstack.supervisor import keep_running, leave_running, stop

_NOT_RUNNING = 3  # the exit code of `systemctl status`
_MIB = 1024**2

_in_directory = click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path, resolve_path=True),
    default=".stack",
    show_default=True,
    help="Directory for configuration, data and logs of both servers.",
)


def _port(option: str, usual: int, what: str) -> Callable[..., Any]:
    explanation = f"{what}.  [default: the last one used here, else {usual} if free, else any free port]"
    return click.option(option, type=click.IntRange(1, 65535), help=explanation)


@click.group(cls=Group)
def stack() -> None:
    """Run Kafka and ClickHouse on this machine without containers.

    \b
    Examples:
      chimera stack up                     # until Ctrl-C
      eval "$(chimera stack up --detach)"  # in the background; sets its variables
      chimera stack status
      chimera stack down
    """


@stack.command()
@_in_directory
@_port("--kafka-port", 9092, "Port of the broker")
@_port("--clickhouse-port", 9000, "Port of ClickHouse's native protocol")
@_port("--http-port", 8123, "Port of ClickHouse's HTTP interface")
@click.option("-d", "--detach", is_flag=True, help="Run in the background; `chimera stack down` stops the servers.")
def up(directory: Path, detach: bool, **ports: int | None) -> None:
    """Start both servers and print the variables for clients.

    Stays in the foreground and stops both servers on Ctrl-C, unless --detach is given. The data are kept: the next
    start in the same directory uses them again, on the same ports. The very first start downloads Apache Kafka, 44 MiB.
    A server that ends by itself is started again, and the other one goes on.

    \b
    Exit codes:
      0   stopped; with --detach: running in the background
      69  a port or the directory is taken, a download failed, a server didn't
          start, or a server ended by itself twice within a minute
      78  the directory is unusable, or the extra `devstack` isn't installed

    \b
    Examples:
      chimera stack up
      chimera stack up --detach --directory /tmp/stack --kafka-port 19092
    """
    fetch_jars()
    if detach:
        with _spinner():
            running = leave_running(directory, ports)
        click.echo(_exports(running))
    else:
        _keep_in_foreground(Stack(directory, **ports, usual_ports=True))


@stack.command()
@_in_directory
def down(directory: Path) -> None:
    """Stop both servers and keep their data.

    Waits until the servers have ended. Does nothing if they don't run.

    \b
    Exit codes:
      0   no server is running
      69  a process doesn't end

    \b
    Examples:
      chimera stack down
      chimera stack down --directory /tmp/stack
    """
    stopped = stop(Stack(directory))
    click.echo(
        f"Stopped. The data are kept in {directory}." if stopped else f"No server is running in {directory}.", err=True
    )


@stack.command()
@_in_directory
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(directory: Path, as_json: bool) -> None:
    """Show the running servers.

    Shows addresses, processes, memory, data, logs, and the variables that `up` printed; also the worker and the monitor
    of a demo that was kept in this directory.

    \b
    Exit codes:
      0   both servers are running
      3   one server or both aren't running

    \b
    Examples:
      chimera stack status
      chimera stack status --json | jq .environment
    """
    known = Stack(directory)
    servers = [_describe(server) for server in known.servers]
    running = all(server["process"] for server in servers)
    beside = [facts for server in demo_processes(directory) if (facts := _describe(server))["process"]]
    if as_json:
        click.echo(
            orjson.dumps(
                {
                    "running": running,
                    "directory": str(directory),
                    "process": holder(known.lock_file),
                    "servers": servers,
                    "processes": beside,
                    "environment": known.environment if running else {},
                }
            )
        )
    else:
        click.echo("\n".join([*map(_line, [*servers, *beside]), *([_exports(known)] if running else [])]))
    if not running:
        click.get_current_context().exit(_NOT_RUNNING)


def fetch_jars() -> None:
    """Download Apache Kafka if it is missing, with a progress bar.

    Raises:
        ConfigError: the extra isn't installed, or the cache directory can't be used.
        UnavailableError, HaltError: the download failed.
    """
    check_installed()
    columns = (TextColumn("Downloading Apache Kafka"), BarColumn(), MofNCompleteColumn())
    console = terminal(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", visible=False)
        jars.fetch(lambda done, total: progress.update(task, completed=done, total=total, visible=True))


def _keep_in_foreground(servers: Stack) -> None:
    with ExitStack() as starting:
        starting.enter_context(_spinner())

        def announce() -> None:
            starting.close()
            click.echo(_exports(servers))
            click.echo(f"Running; data and logs are in {servers.directory}. Press Ctrl-C to stop.", err=True)

        keep_running(servers, announce, _say_restart, _say_restarted)


def _say_restart(server: Server) -> None:
    click.echo(f"{server.name} ended by itself, starting it again; see {server.log_file}", err=True)


def _say_restarted(server: Server) -> None:
    click.echo(f"{server.name} answers again", err=True)


def _spinner() -> AbstractContextManager[object]:
    console = terminal(stderr=True)
    return console.status("Starting Apache Kafka and ClickHouse") if console.is_terminal else nullcontext()


def _describe(server: Server) -> dict[str, Any]:
    """Return the facts about a server as the JSON object of `--json`."""
    psutil = require("psutil")
    facts: dict[str, Any] = {
        "name": server.name,
        "directory": str(server.directory),
        "log": str(server.log_file),
        "process": None,
    }
    with suppress(psutil.NoSuchProcess):
        if pid := holder(server.lock_file):
            process = psutil.Process(pid)
            facts |= {
                "addresses": {name: f"{HOST}:{port}" for name, port in server.ports.items()},
                "uptime_seconds": round(time.time() - process.create_time(), 1),
                "rss_bytes": process.memory_info().rss,
                "process": pid,
            }
    return facts


def _line(server: dict[str, Any]) -> str:
    if not server["process"]:
        return f"{server['name']}: not running; directory {server['directory']}"
    return (
        f"{server['name']}: {_addresses(server['addresses'])}, process {server['process']}, "
        f"up {timedelta(seconds=round(server['uptime_seconds']))}, {server['rss_bytes'] / _MIB:.0f} MiB; "
        f"directory {server['directory']}, log {server['log']}"
    )


def _addresses(addresses: dict[str, str]) -> str:
    """Return the addresses, with the protocol where a server has two."""
    if "http_port" not in addresses:
        return addresses["port"]
    return f"native {addresses['port']}, HTTP http://{addresses['http_port']} (queries in a browser: /play)"


def _exports(servers: Stack) -> str:
    return "\n".join(f"export {name}={value}" for name, value in servers.environment.items())
