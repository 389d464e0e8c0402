"""Check that fills and rewrites lose and double nothing under load and kills; the last line is one JSON object.

Usage: PYTHONPATH=tests python -m replaying [--events N] [--live N] [--kills N] [--swaps N]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from replaying.world import World

_VARIETY = 50_000
_KILLS_OF_A_REWRITE = 3


def main() -> None:
    """Run the check; exit code 1 if a row is lost or doubled, a second fill inserts any, or a replay is too slow."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--live", type=int, default=20_000, help="events a second beside the replays")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--swaps", type=int, default=20)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="replay-check-") as directory, World(Path(directory), _VARIETY) as world:
        rate = _ingest(world, chosen.events)
        facts: dict[str, Any] = {"fill": _fill(world, chosen)}
        facts["rewrite"] = _rewrite(world, chosen)
        facts["again"] = {"inserted": world.replay()["inserted"]}
        facts["worker_rows_per_s"] = round(rate)
    print(json.dumps(facts))  # noqa: T201 (the result)
    sys.exit(0 if _is_right(facts, chosen) else 1)


def _is_right(facts: dict[str, Any], chosen: argparse.Namespace) -> bool:
    """Tell whether nothing was lost or doubled, all kills were made, and a replay is as fast as a worker."""
    wrong = [facts[part][what] for part in ("fill", "rewrite") for what in ("lost", "doubled")]
    return (
        not any([*wrong, facts["again"]["inserted"]])
        and facts["fill"]["missing_before"] > 0
        and facts["fill"]["kills"] == chosen.kills
        and facts["fill"]["rows_per_s"] >= facts["worker_rows_per_s"]
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 (progress)


def _ingest(world: World, events: int) -> float:
    """Have the worker store all events; return its rows per second from its first row to its last."""
    world.produce(events)
    _say(f"{events:,} events produced")
    world.start_worker()
    while not world.query("SELECT count() FROM ui_events")[0]:
        time.sleep(0.05)
    began, first = time.monotonic(), world.query("SELECT count() FROM ui_events")[0]
    while (rows := world.query("SELECT count() FROM ui_events")[0]) < events:
        time.sleep(0.05)
    rate = (rows - first) / (time.monotonic() - began)
    world.await_worker()
    _say(f"worker: {rate:,.0f} rows/s")
    return float(rate)


def _fill(world: World, chosen: argparse.Namespace) -> dict[str, Any]:
    """Delete a third of most days, and fill under load with kills; then measure a fill without kills and load."""
    ends = world.ends
    total = sum(ends.values())
    kills = missing = 0
    with world.load(chosen.live):
        while kills < chosen.kills or not missing:
            before = world.below(ends)
            if before >= total:  # at first, and after a replay that ended before its kill
                missing += _delete_a_third(world, ends)
                assert missing, "no row was deleted"
                continue
            kills += world.killed_replay(begun=lambda before=before: world.below(ends) > before, seconds=0.5)  # type: ignore[misc]
            _say(f"kill {kills}: {total - world.below(ends):,} of {missing:,} rows missing")
        world.replay()
        inserted = world.below(ends) - (total - missing)
    world.replay()  # what the worker had not committed when the other one began
    lost, doubled = world.lost_and_doubled()
    measured = world.replay("--into", "ui_events_again")
    _say(f"fill: {missing:,} missing, lost {lost}, doubled {doubled}, {measured['records_per_second']:,} rows/s")
    return {
        "missing_before": missing,
        "inserted": inserted,
        "lost": lost,
        "doubled": doubled,
        "kills": kills,
        "rows_per_s": measured["records_per_second"],
    }


def _delete_a_third(world: World, ends: dict[int, int]) -> int:
    """Delete a third of most days; return the number of rows of records below `ends` that are gone."""
    before = world.below(ends)
    world.query(
        f"ALTER TABLE ui_events DELETE WHERE cityHash64(_partition, _offset) % 3 = 0 "
        f"AND toDate(ts) != toDate('{world.day}') - 1 SETTINGS mutations_sync = 2"
    )
    return before - world.below(ends)


def _rewrite(world: World, chosen: argparse.Namespace) -> dict[str, Any]:
    """Rewrite today's partition again and again under load; kill the worker and the replay in turn."""
    stalls, rates, kills = [], [], 0
    # Older records are copied as they are: reading all of the log for each swap would take most of the time.
    begin = [word for number, end in world.ends.items() for word in ("--from", f"{number}:{end}")]
    arguments = ("--day", str(world.day), *begin)
    with world.load(chosen.live):
        for number in range(chosen.swaps):
            if number % 6 == 2 and kills < _KILLS_OF_A_REWRITE:
                kills += 1
                world.start_worker()
                while not world.killed_replay(*arguments, seconds=6.0):
                    _say("a replay ended before its kill; another one")
            done = world.replay(*arguments)
            assert done["swapped"]
            stalls.append(done["stall_ms"])
            if done["records_per_second"] is not None:  # the first ones may be too short to have a rate
                rates.append(done["records_per_second"])
            _say(f"swap {number + 1}: inserts waited {done['stall_ms']:.0f} ms")
    lost, doubled = world.lost_and_doubled()
    return {
        "swaps": len(stalls),
        "lost": lost,
        "doubled": doubled,
        "kills": 2 * kills,
        "stall_ms_p50": round(statistics.median(stalls)),
        "stall_ms_max": round(max(stalls)),
        "rows_per_s": round(statistics.median(rates)),
    }


if __name__ == "__main__":
    main()
