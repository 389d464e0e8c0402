"""`chimera tap`: show the records of a family as they come."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import click
import orjson

from pipeline.catalog import Family, load_catalog
from pipeline.cli.tap_where import Where
from pipeline.cli.times import TimeType
from pipeline.config import load_settings
from pipeline.dlq.content import Content, Reader
from pipeline.dlq.fields import as_json as json_text
from pipeline.dlq.fields import field_line, masked, ms_as_text, plain, readable, shown_fields
from pipeline.kafka.registry import registry_of
from pipeline.operations.lineage.dump import DumpedRecord, dumped_line
from pipeline.operations.lineage.tail import Tail, tail_of
from pipeline.schema.framing import schema_name

_Write = Callable[[int, Any, Content], None]


_EPILOG = """
\b
Exit codes:
  0   --limit or the end is reached, or interrupted
  2   the options are wrong
  69  Kafka or the schema registry doesn't answer
  70  Kafka refuses, the topic is missing, or its log is damaged
  78  a setting, topics.yaml or a schema is wrong, or the family is unknown

\b
Examples:
  chimera tap ui_events
  chimera tap ui_events --where 'event_type = error and latency_ms > 1000' --limit 5
  chimera tap llm_events --since 1h --no-follow --json | jq .fields
  chimera tap ui_events --since 2026-11-24 --no-follow --raw | gzip > ui_events.dump.gz
"""


@click.command(epilog=_EPILOG)
@click.argument("family")
@click.option(
    "--where",
    metavar="EXPR",
    help="Only records that meet these conditions: fields, partition or offset, with = != < <= > >= or ~ (a regular "
    "expression), joined by `and`.",
)
@click.option("--limit", type=click.IntRange(min=1), help="End after so many records.  [default: Ctrl-C ends it]")
@click.option(
    "--since", type=TimeType(), help="Begin with records of this time in Kafka, ISO 8601 or so long ago, such as 1h."
)
@click.option("--no-follow", is_flag=True, help="End at the end that the log has now.")
@click.option("--unmask", is_flag=True, help="Show the content of keys, values and headers.")
@click.option("--raw", is_flag=True, help="Write whole records as a dump, which `chimera replay --from-file` reads.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def tap(
    *,
    family: str,
    where: str | None,
    limit: int | None,
    since: datetime | None,
    no_follow: bool,
    unmask: bool,
    raw: bool,
    as_json: bool,
) -> None:
    """Show the records of FAMILY as they come, decoded.

    Reads the topic beside the workers: it joins no group, commits nothing, and leaves out what isn't committed by its
    producer. Values are shown field by field, and masked as `chimera dlq show` masks them: only type and length, unless
    --unmask is given. A dump (--raw) has the records' own bytes; like unmasked content, it may be personal data: run
    `umask 077` before you write it to a file.
    Partitions that are added meanwhile aren't read.
    """
    if raw and (unmask or as_json):
        raise click.UsageError("expected --raw without --unmask and --json: a dump has a form of its own")
    settings = load_settings()
    known = load_catalog(settings).family(family)
    conditions, reader = Where(known, where), Reader(known, registry_of(settings.registry))
    with tail_of(settings.kafka, known.topic.name, since, follow=not no_follow) as tail:
        write = _dump(tail) if raw else _show(known, unmask=unmask, as_json=as_json)
        try:
            _run(reader, tail, conditions, limit, write)
        except KeyboardInterrupt:
            return


def _run(reader: Reader, tail: Tail, where: Where, limit: int | None, write: _Write) -> None:
    left = limit
    for partition, record in tail.records():
        content = reader.read(record.value)
        if where.holds(content.fields, partition, record.offset):
            write(partition, record, content)
            left = None if left is None else left - 1
            if left == 0:
                return


def _dump(tail: Tail) -> _Write:
    out = click.get_binary_stream("stdout")

    def write(partition: int, record: Any, _: Content) -> None:
        place = (tail.topic, tail.topic_id, partition, record.offset, record.timestamp)
        headers = tuple((name, value) for name, value in record.headers or ())
        out.write(dumped_line(DumpedRecord(*place, record.key, record.value, headers)))
        out.flush()

    return write


def _show(family: Family, *, unmask: bool, as_json: bool) -> _Write:
    say = readable if unmask else masked

    def write(partition: int, record: Any, content: Content) -> None:
        said = {
            "record": f"{family.topic.name}:{partition}:{record.offset}",
            "timestamp": ms_as_text(record.timestamp),
            "schema": schema_name(record.value or b""),
            "key": say(record.key, None),
            "headers": [[say(name, None), say(value, None)] for name, value in record.headers or ()],
            "bytes": None if record.value is None else len(record.value),
            "fields": shown_fields(family, content, unmask=unmask),
            "ends": content.ends,
        }
        click.echo(orjson.dumps(said) if as_json else "\n".join(_lines(said)))

    return write


def _lines(said: dict[str, Any]) -> list[str]:
    size = "null" if said["bytes"] is None else f"{said['bytes']:,} bytes"
    lines = [plain(f"{said['record']}  {said['timestamp']}  {size}  {said['schema'] or 'no schema'}")]
    lines.append(f"  key {json_text(said['key'])}")
    lines += [f"  header {json_text(name)}: {json_text(value)}" for name, value in said["headers"]]
    lines += [field_line(name, value) for name, value in said["fields"].items()]
    return [*lines, plain(f"    here reading ends: {said['ends']}")] if said["ends"] else lines
