"""Check that recoveries are exact beside live ingest; the last line is one JSON object.

Usage: PYTHONPATH=tests python -m recovering [--recoveries N] [--events N] [--live N]
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from replaying.world import World
from support.processes import eventually, lag

from pipeline.errors import UnavailableError
from recovering.moments import Judged, Timestamps, judge

_VARIETY = 50_000
_APART_SECONDS = 6.0  # between two backups, so that moments fit between them
_ATTEMPTS = 5
_COMMIT_SECONDS = 3.0  # after a moment, before it is recovered
_BEHIND_SECONDS = 5.0
_PATIENCE_SECONDS = 600.0


def main() -> None:
    """Run the check; exit code 1 if a row is lost, doubled or too new, or has other content."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--recoveries", type=int, default=10)
    parser.add_argument("--events", type=int, default=300_000, help="events before the first backup")
    parser.add_argument("--live", type=int, default=10_000, help="events a second beside the recoveries")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recovery-check-") as directory, World(Path(directory), _VARIETY) as world:
        world.produce(chosen.events)
        world.start_worker()
        world.await_worker()
        with world.load(chosen.live):
            judged, seconds = _recover(world, chosen.recoveries, chosen.live)
        events = sum(world.ends.values())
    facts = {
        "recoveries": len(judged),
        "events": events,
        "lost": sum(each.lost for each in judged),
        "doubled": sum(each.doubled for each in judged),
        "too_new": sum(each.too_new for each in judged),
        "seconds_p50": round(statistics.median(seconds), 1),
        "seconds_max": round(max(seconds), 1),
    }
    print(json.dumps(facts))  # noqa: T201 (the result)
    wrong = facts["lost"] or facts["doubled"] or facts["too_new"] or not all(each.same for each in judged)
    sys.exit(1 if wrong else 0)


def _recover(world: World, count: int, live: int) -> tuple[list[Judged], list[float]]:
    """Make backups, and recoveries from each kind of them to random moments; return results and seconds."""
    timestamps, judged, seconds = Timestamps(world), list[Judged](), list[float]()
    began = time.time()
    time.sleep(_APART_SECONDS)
    made = [_backup("--full")]
    kinds: list[Callable[[], tuple[float, float]]] = [
        lambda: (made[-1].ended, time.time()),  # from the newest backup
        lambda: (made[0].ended, made[1].began),  # from the full one, before the newest
        lambda: (made[-2].ended, made[-1].began),  # from the one before the newest
        lambda: (began, made[0].began),  # before the oldest one
    ]
    for number in range(count):
        time.sleep(_APART_SECONDS)
        if len(made) < 2 or number % 3 == 2:
            made.append(_backup("--incremental"))
            time.sleep(_APART_SECONDS)
        _await_worker(world, live)
        moment = random.uniform(*kinds[number % len(kinds)]())
        time.sleep(_COMMIT_SECONDS)
        done = _restore(moment, f"recovered_{number}")
        ends = timestamps.ends_at(round(moment * 1000))
        judged.append(judge(world, f"recovered_{number}", ends))
        seconds.append(done["seconds"])
        _say(
            f"{number + 1}: {datetime.fromtimestamp(moment, UTC):%H:%M:%S.%f} from {done['backup']}"
            f"{' (made after it)' if done['after'] else ''}: {done['rows']['ui_events']:,} rows, {done['deleted']:,} "
            f"deleted, {done['inserted']:,} filled in, {done['seconds']:.1f} s: {judged[-1]}"
        )
        world.query(f"DROP DATABASE recovered_{number} SYNC")
    return judged, seconds


def _await_worker(world: World, live: int) -> None:
    """Wait until the worker is less than some seconds of the load behind: until then it owns the newest records."""
    topic = world.family.topic.name
    eventually(
        lambda: lag(world.settings, topic) <= live * _BEHIND_SECONDS,
        f"the worker keeps up with {live:,} events a second; on a slower machine, run it with a smaller --live",
        _PATIENCE_SECONDS,
    )


class _Made(NamedTuple):
    """Times before and after a backup was made, in seconds since 1970."""

    began: float
    ended: float


def _backup(kind: str) -> _Made:
    began = time.time()
    made = _chimera("backup", "create", kind)
    _say(f"{made['kind']} backup {made['name']}: {made['bytes'] / 1024**2:.1f} MiB")
    return _Made(began, time.time())


def _restore(moment: float, into: str) -> dict[str, Any]:
    time_of = datetime.fromtimestamp(round(moment * 1000) / 1000, UTC).isoformat()
    began = time.monotonic()
    facts = _chimera("restore", "--to", time_of, "--into", into, "--execute")
    return facts | {"seconds": time.monotonic() - began}


def _chimera(*arguments: str) -> dict[str, Any]:
    """Run a command, and again if a server doesn't answer in time, as on a machine with other work: it goes on."""
    executable = str(Path(sys.executable).with_name("chimera"))
    for _ in range(_ATTEMPTS):
        done = subprocess.run([executable, *arguments, "--json"], capture_output=True, text=True, check=False)
        if done.returncode != UnavailableError.exit_code:
            break
        _say(f"again: {done.stderr.strip()}")
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 (progress)


if __name__ == "__main__":
    main()
