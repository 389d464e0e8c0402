"""Stories of sample events: sessions of viewers, runs of the agents, benchmarks of models.

A story is an iterator over the events of one session, run or benchmark, in order. The caller sets the events' times.
"""

import random
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from itertools import count as counting
from typing import Any, NamedTuple

Event = tuple[str, dict[str, Any]]
"""Family, and the event's fields."""
Story = Iterator[Event]

_FAILING_RUN = 12  # every twelfth run fails


class Model(NamedTuple):
    """A language model with its prices in millionths of a dollar per token, and its speed."""

    name: str
    quant: str
    price_in: float
    price_out: float
    tokens_per_sec: float
    memory_mb: int


_LOCAL_MODELS = (
    Model("llama3.1:8b-instruct-q4_0", "q4_0", 0.04, 0.06, 96.0, 5_400),
    Model("llama3.1:8b-instruct-q8_0", "q8_0", 0.06, 0.09, 61.0, 9_200),
    Model("llama3.1:8b-instruct-fp16", "fp16", 0.11, 0.16, 33.0, 16_900),
    Model("mistral:7b-instruct-q4_K_M", "q4_K_M", 0.04, 0.05, 104.0, 4_900),
    Model("gemma2:9b-instruct-q5_K_M", "q5_K_M", 0.07, 0.1, 58.0, 7_600),
)
_HOSTED_MODELS = (
    Model("gpt-4", "none", 30.0, 60.0, 28.0, 0),
    Model("gpt-4o-mini", "none", 0.15, 0.6, 88.0, 0),
    Model("claude-3-5-sonnet", "none", 3.0, 15.0, 64.0, 0),
)
_DATASETS = ("banter-dialogues", "stream-chat-2k", "mmlu-mini")
_USER_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari",
    "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) OBS/30.2.3 Chrome/127.0.0.0",
    "Banterpacks/2.4.1 (overlay; electron 33.2.0)",
)
_OVERLAYS = ("stream", "leaderboard", "chat", "replay")
_LOCALES = ("en-US", "en-GB", "de-DE", "fr-FR", "es-ES", "ja-JP")
_UI_ERRORS = ("upstream_timeout", "model_unavailable", "rate_limited", "render_failed")
_LLM_ERRORS = ("context length exceeded", "upstream connection reset", "rate limit reached, retry after 20 s")
_TOPICS = (
    "Quantized Nights",
    "The Latency Blues",
    "Overlay Confessions",
    "A Cache Miss in Public",
    "Tokens Per Second",
)


@dataclass
class World:
    """State that all stories share."""

    rng: random.Random
    runs: Iterator[int] = field(default_factory=lambda: counting(1))
    hearts_commit: str = ""
    packs_commit: str = ""

    def push(self) -> None:
        """Set new commits of Banterhearts and Banterpacks."""
        self.hearts_commit = f"{self.rng.getrandbits(160):040x}"
        self.packs_commit = f"{self.rng.getrandbits(160):040x}"

    def uuid(self) -> str:
        """Return a random (version 4) UUID."""
        digits = f"{self.rng.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

    def around(self, typical: float) -> int:
        """Return a random whole number near a typical value, with a long tail like a latency."""
        return int(typical * self.rng.lognormvariate(0.0, 0.35))


def viewer(world: World) -> Story:
    """Yield a session of the overlay: opens, mostly with queries, sometimes abandoned or with errors."""
    rng = world.rng
    session_id, user_agent = world.uuid(), rng.choice(_USER_AGENTS)
    place = f'"overlay":"{rng.choice(_OVERLAYS)}","locale":"{rng.choice(_LOCALES)}"'

    def event(event_type: str, latency_ms: int, details: str) -> Event:
        return "ui_events", {
            "ts": 0,
            "session_id": session_id,
            "commit_sha": world.packs_commit,
            "event_type": event_type,
            "latency_ms": latency_ms,
            "user_agent": user_agent,
            "metadata": f"{{{place},{details}}}",
            "schema_version": 1,
        }

    for opened in range(1, rng.randrange(2, 6)):
        yield event("overlay_open", world.around(140), f'"opened":{opened}')
        if rng.random() < 0.22:
            continue  # abandoned
        for _ in range(rng.randrange(1, 5)):
            if rng.random() < 0.06:
                yield event("error", world.around(2_500), f'"code":"{rng.choice(_UI_ERRORS)}"')
            yield event("query_submit", world.around(420), f'"query_length":{rng.randrange(4, 180)}')


def run(world: World) -> Story:
    """Yield a run of the agents: the watcher checks, the council writes with a few calls, the publisher deploys."""
    rng, number, run_id = world.rng, next(world.runs), world.uuid()
    failing = number % _FAILING_RUN == 0
    lag_seconds = world.around(4_000 if failing else 240)
    yield (
        "watcher_runs",
        {
            "ts": 0,
            "run_id": run_id,
            "hearts_commit": world.hearts_commit,
            "packs_commit": world.packs_commit,
            "hearts_rows_found": 0 if failing else world.around(320),
            "packs_rows_found": world.around(5_000),
            "lag_seconds": lag_seconds,
            "status": "error" if failing else "degraded" if lag_seconds > 400 else "valid",
            "duration_ms": world.around(1_800),
        },
    )
    tokens, micros = yield from _council(world, run_id)
    series = rng.choice(("banterpacks", "chimera"))
    yield _episode(world, run_id, number, series=series, tokens=tokens, micros=micros)
    if number % _FAILING_RUN:
        yield from _deployment(world, run_id, series, number)


def _council(world: World, run_id: str) -> Generator[Event, None, tuple[int, int]]:
    """Yield the council's calls; return their tokens, and their cost in millionths of a dollar."""
    rng = world.rng
    tokens = micros = 0
    for operation in ("analyze", *["generate"] * rng.randrange(2, 6), *["translate"] * rng.randrange(3)):
        call, call_micros = _call(world, run_id, "council", rng.choice(_HOSTED_MODELS), operation)
        tokens += call["tokens_in"] + call["tokens_out"]
        micros += call_micros
        yield "llm_events", call
    return tokens, micros


def _episode(world: World, run_id: str, number: int, *, series: str, tokens: int, micros: int) -> Event:
    """Return the episode that the council has written."""
    rng, failing = world.rng, number % _FAILING_RUN == 0
    return "episodes", {
        "ts": 0,
        "run_id": run_id,
        "series": series,
        "episode_num": number % 65_536,
        "title": f"{rng.choice(_TOPICS)}, part {number}",
        "confidence_score": round(rng.uniform(0.1, 0.5) if failing else rng.uniform(0.6, 0.98), 3),
        "correlation_strength": round(rng.uniform(-0.2, 0.9), 3),
        "tokens_total": tokens,
        "cost_total": _dollars(micros),
        "status": "failed" if failing else "published",
        "file_path": f"posts/{series}/ep-{number:03d}.md",
        "commit_sha": world.packs_commit if series == "banterpacks" else world.hearts_commit,
    }


def _deployment(world: World, episode_run_id: str, series: str, number: int) -> Story:
    """Yield the publisher's run with its own id: one deployment, or a failed one and its repetition."""
    rng, run_id = world.rng, world.uuid()
    for status in ("error", "ready") if rng.random() < 0.08 else ("ready",):
        yield (
            "deployments",
            {
                "ts": 0,
                "run_id": run_id,
                "episode_run_id": episode_run_id,
                "status": status,
                "vercel_deployment_id": f"dpl_{rng.getrandbits(120):030x}",
                "url": f"https://muse-{series}-{number}.vercel.app",
                "duration_ms": world.around(38_000),
                "error_msg": "build exited with code 1" if status == "error" else "",
            },
        )


def benchmark(world: World) -> Story:
    """Yield a benchmark of a local model: its calls, then their summary."""
    rng, run_id, model = world.rng, world.uuid(), world.rng.choice(_LOCAL_MODELS)
    latencies = []
    for _ in range(rng.randrange(3, 7)):
        call, _ = _call(world, run_id, "banterhearts", model, "generate")
        latencies.append(call["latency_ms"])
        yield "llm_events", call
    latencies.sort()
    yield (
        "bench_runs",
        {
            "ts": 0,
            "run_id": run_id,
            "commit_sha": world.hearts_commit,
            "model": model.name,
            "quant": model.quant,
            "dataset": rng.choice(_DATASETS),
            "latency_p50_ms": latencies[len(latencies) // 2],
            "latency_p95_ms": latencies[-1],
            "latency_p99_ms": latencies[-1],
            "tokens_per_sec": round(model.tokens_per_sec * rng.uniform(0.9, 1.1), 2),
            "cost_per_1k": _dollars(round(1_000 * model.price_out)),
            "memory_peak_mb": world.around(model.memory_mb),
            "schema_version": 1,
        },
    )


def _call(world: World, run_id: str, source: str, model: Model, operation: str) -> tuple[dict[str, Any], int]:
    """Return a call of a language model, and its cost in millionths of a dollar."""
    rng = world.rng
    failed = rng.random() < 0.03
    tokens_in, tokens_out = world.around(900), 0 if failed else world.around(350)
    micros = round(tokens_in * model.price_in + tokens_out * model.price_out)
    return {
        "ts": 0,
        "run_id": run_id,
        "source": source,
        "model": model.name,
        "operation": operation,
        "tokens_in": tokens_in,
        "tokens_out": tokens_out,
        "latency_ms": world.around(30_000 if failed else 200 + 1_000 * tokens_out / model.tokens_per_sec),
        "cost_usd": _dollars(micros),
        "status": rng.choice(("failure", "timeout")) if failed else "success",
        "error_msg": rng.choice(_LLM_ERRORS) if failed else "",
    }, micros


def _dollars(micros: int) -> str:
    return f"{micros // 1_000_000}.{micros % 1_000_000:06d}"


class StoryKind(NamedTuple):
    """A kind of story: its function, its turns out of twenty, and the families of its events."""

    story: Callable[[World], Story]
    weight: int
    families: frozenset[str]


KINDS = (
    StoryKind(viewer, 13, frozenset({"ui_events"})),
    StoryKind(run, 5, frozenset({"watcher_runs", "llm_events", "episodes", "deployments"})),
    StoryKind(benchmark, 2, frozenset({"llm_events", "bench_runs"})),
)
