"""`python -m hostile`: run hostile records and personal data through a real worker, and report the failures."""

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
@click.option("--numpy", is_flag=True, help="Decode with numpy alone, not with the compiled core.")
def main(*, numpy: bool) -> None:
    """Run the hostile cases through a real worker, each between two valid neighbours, and the corpus of personal data.

    The command starts a broker and ClickHouse, and stops them at the end. Standard output lists the failures; its last
    line is a JSON object. After a failure the logs are kept; the last line on standard error names their directory.

    \b
    Examples:
      PYTHONPATH=tests python -m hostile
      PYTHONPATH=tests python -m hostile --numpy | tail -1

    \b
    Exit codes:
      0  every case has its verdict, no neighbour is lost, and nothing personal is found
      1  a verdict is wrong, a neighbour is lost, or personal data is found
    """
    directory = Path(mkdtemp(prefix="chimera-hostile-"))
    with Console(stderr=True).status("hostile cases") as status, Stack(directory / "stack") as stack:
        core = {env_name("worker", "compiled_core"): str(not numpy).lower()}
        _use_only({**stack.environment, **core, env_name("worker", "web_port"): str(free_port())})
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


def _use_only(environ: dict[str, str]) -> None:
    """Remove the caller's settings from the environment, and set these."""
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        del os.environ[name]
    os.environ.update(environ)


if __name__ == "__main__":
    main()
