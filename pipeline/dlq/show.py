"""Show a dead letter: as text for a terminal or as a JSON object; values are masked by default.

Nothing that a producer wrote is printed unescaped, because it may hold control sequences for a terminal.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.catalog import Family
from pipeline.dlq.content import Content
from pipeline.dlq.fields import as_json, as_text, field_line, masked, plain, readable, shown_fields
from pipeline.dlq.headers import CUT_PREFIX, HEADER_PREFIX, error_facts, own_headers
from pipeline.dlq.letters import DlqRecord, Letter, record_time

_SHOWN_BYTES = 64
_CUT = CUT_PREFIX.removeprefix(HEADER_PREFIX)


def described(family: Family, letter: Letter, record: DlqRecord, content: Content, *, unmask: bool) -> dict[str, Any]:
    """Describe a dead letter as a JSON object.

    Args:
        family: owner of the dead letter.
        letter: its entry in the index.
        record: the dead letter itself.
        content: the readable part of its value.
        unmask: show keys, values, and names and values of headers; otherwise only their lengths and types.
    """
    say = readable if unmask else masked
    facts = {} if letter.foreign else error_facts(record.headers)
    at = record_time(facts)
    source = f"{family.topic.name}:{letter.source_partition}:{letter.source_offset}"
    return {
        "source": None if letter.foreign else source,
        "dead_letter": f"{family.dead_letters.name}:{letter.partition}:{letter.offset}",
        "reason": letter.reason,
        "detail": facts.get("detail", ""),
        "timestamp": at and as_text(at),
        "failed_at": as_text(letter.failed_at),
        "attempts": letter.attempts,
        "copies": letter.copies,
        "state": letter.state,
        "left_out": {name[len(_CUT) :]: fact for name, fact in facts.items() if name.startswith(_CUT)},
        "schema": facts.get("schema", ""),
        "version": facts.get("version", ""),
        "key": say(record.key, None),
        "headers": [[say(name, None), say(value, None)] for name, value in own_headers(record.headers)],
        "bytes": None if record.value is None else len(record.value),
        "fields": shown_fields(family, content, unmask=unmask),
        "ends": content.ends,
        **({"begins": (record.value or b"")[:_SHOWN_BYTES].hex(" ")} if unmask and content.ends else {}),
    }


def lines(said: Mapping[str, Any]) -> Iterator[str]:
    """Make lines for a terminal of a description, without control sequences."""
    tries = f"{said['attempts']} {'try' if said['attempts'] == 1 else 'tries'}"
    copies = f", {said['copies']} copies" if said["copies"] > 1 else ""
    state = "" if said["state"] == "open" else f", {said['state']}"
    yield plain(f"{said['source'] or said['dead_letter']}  {said['reason']}: {said['detail']}")
    yield plain(f"  at         {said['failed_at']}, {tries}{copies}{state}, in {said['dead_letter']}")
    yield plain(f"  schema     {said['schema'] or 'none'}, worker {said['version'] or 'unknown'}")
    yield f"  record     of {said['timestamp'] or 'an unknown time'}"
    yield f"  key        {as_json(said['key'])}"
    for name, value in said["headers"]:
        yield f"  header     {as_json(name)}: {as_json(value)}"
    for name, fact in said["left_out"].items():
        yield plain(f"  too large  without its {name}: {fact}")
    size = "null" if said["bytes"] is None else f"{said['bytes']:,} bytes"
    yield f"  value      {size}"
    blamed = said["detail"].partition(":")[0]
    for name, value in said["fields"].items():
        yield field_line(name, value) + ("   <- " + plain(said["detail"]) if name == blamed else "")
    if said["ends"]:
        yield plain(f"    here reading ends: {said['ends']}")
    if said.get("begins"):
        yield f"    it begins {said['begins']}"
