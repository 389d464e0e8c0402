"""`python -m benchmarks.sanitising`: CPU time of decoding, validation and sanitising, without broker and database.

Each workload is decoded with and without sanitising, in alternating runs; the best of several runs counts. Workloads
with distinct values are the worst cases, because no earlier result can be used again.
"""

import time
from collections.abc import Iterable, Mapping

from benchmarks.cases import CASES, SAMPLE
from benchmarks.workload import START
from pipeline.catalog import Catalog, load_catalog
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.privacy.hashing import Hasher
from pipeline.privacy.sanitise import Sanitiser
from pipeline.producer.encode import Encoder
from pipeline.producer.sample import sample
from pipeline.producer.sample.stories import Event

_EVENTS = 200_000
_BATCH = 20_000
_RUNS = 5

Values = Mapping[str, list[bytes]]
"""Values of the records by family."""


def _encoded(catalog: Catalog, events: Iterable[Event]) -> Values:
    encoders = {family.name: Encoder(family) for family in catalog.families}
    values: dict[str, list[bytes]] = {}
    for family, event in events:
        values.setdefault(family, []).append(encoders[family].encode(event).value)
    return values


def _seconds(catalog: Catalog, values: Values, hasher: Hasher | None) -> float:
    """CPU time to decode all values with new decoders, in seconds."""
    decoders = {
        name: Decoder(family, sanitise=Sanitiser(family.schema, hasher) if hasher else None)
        for name in values
        for family in [catalog.family(name)]
    }
    began = time.process_time()
    for name, records in values.items():
        for first in range(0, len(records), _BATCH):
            decoders[name].decode(records[first : first + _BATCH])
    return time.process_time() - began


def main() -> None:
    """Print CPU time in µs for one row."""
    catalog, hasher = load_catalog(Settings()), Hasher(b"a key for the benchmark")
    workloads = {
        "the sample, all families": _encoded(catalog, sample(_EVENTS, seed=5, start=START, hours=24.0)),
        "the sample, ui_events": _encoded(catalog, SAMPLE.events(_EVENTS)),
        **{case.title: _encoded(catalog, case.events(_EVENTS)) for case in CASES if case.change},
    }
    print(f"{'µs of CPU a row':42}{'decode, validate':>18}{'and sanitise':>14}{'difference':>12}")
    for title, values in workloads.items():
        runs = [[_seconds(catalog, values, each) for each in (None, hasher)] for _ in range(_RUNS)]
        plain, treated = (1e6 * min(times) / _EVENTS for times in zip(*runs, strict=True))
        print(f"{title:42}{plain:18.2f}{treated:14.2f}{treated - plain:12.2f}")


if __name__ == "__main__":
    main()
