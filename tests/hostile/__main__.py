"""`python -m hostile`: run what is made to do harm through a real worker, and report what got through."""

import os
import shutil
import sys
from pathlib import Path
from tempfile import mkdtemp

import click
import orjson
from rich.console import Console
from support.pii import CORPUS

from hostile.personal import leaks
from hostile.run import run
from pipeline.config import ENV_PREFIX, env_name, load_settings
from pipeline.devstack import Stack
from pipeline.devstack.ports import free_port


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run the hostile cases through a real worker, each between two valid neighbours, and the corpus of personal data.

    Broker and ClickHouse are started for it, and stopped after it. What is wrong is listed on standard output, whose
    last line is a JSON object; logs are kept where the last line on standard error says.

    \b
    Examples:
      PYTHONPATH=tests python -m hostile
      PYTHONPATH=tests python -m hostile | tail -1

    \b
    Exit codes:
      0  every case has its verdict, no neighbour is lost, and nothing personal is found
      1  something is wrong
    """
    directory = Path(mkdtemp(prefix="chimera-hostile-"))
    with Console(stderr=True).status("hostile cases") as status, Stack(directory / "stack") as stack:
        _ours_alone({**stack.environment, env_name("worker", "web_port"): str(free_port())})
        outcome = run(load_settings(), os.environ, directory)
        status.update("personal data")
        found = leaks(load_settings(), os.environ, directory)
    for line in (*outcome.wrong, *outcome.lost, *(f"{where}: {', '.join(what)}" for where, what in found.items())):
        click.echo(line)
    totals = {
        "cases": outcome.cases,
        "wrong_verdicts": len(outcome.wrong),
        "neighbours_lost": len(outcome.lost),
        "pii_strings": len(CORPUS),
        "pii_found": sum(map(len, found.values())),
    }
    sound = not (outcome.wrong or outcome.lost or found)
    if sound:
        shutil.rmtree(directory)
    else:
        click.echo(f"logs: {directory}", err=True)
    click.echo(orjson.dumps(totals))
    sys.exit(0 if sound else 1)


def _ours_alone(environ: dict[str, str]) -> None:
    """Settings of the caller's have no say."""
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        del os.environ[name]
    os.environ.update(environ)


if __name__ == "__main__":
    main()
