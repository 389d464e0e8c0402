"""The folder of families of one's own: topics.yaml, schemas, migrations and examples; and the files of a new family."""

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.catalog import Catalog
from pipeline.clickhouse.migrate import FIRST_OWN
from pipeline.config import Settings, env_name
from pipeline.errors import ConfigError
from pipeline.producer.sample.generated import generated

_NUMBER = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


class OwnFolder(NamedTuple):
    """Places of the files of one's own."""

    topics: Path
    schemas: Path
    migrations: Path
    examples: Path

    @classmethod
    def at(cls, root: Path) -> "OwnFolder":
        """Return the places in a folder."""
        return cls(root / "topics.yaml", root / "schemas", root / "migrations", root / "examples")

    @classmethod
    def configured(cls, settings: Settings) -> "OwnFolder | None":
        """Return the places that the settings name; None if they name none.

        Raises:
            ConfigError: they name only some.
        """
        places = {
            ("topics", "own_file"): settings.topics.own_file,
            ("schemas", "own_directory"): settings.schemas.own_directory,
            ("clickhouse", "migrations"): settings.clickhouse.migrations,
        }
        if not any(places.values()):
            return None
        for name, place in places.items():
            if place is None:
                raise ConfigError(f"{env_name(*name)}: expected a path beside those of the other folders of one's own")
        topics, schemas, migrations = (Path(place) for place in places.values() if place)
        return cls(topics, schemas, migrations, topics.parent / "examples")

    @property
    def environment(self) -> Mapping[str, Path]:
        """The environment variables that name the folder."""
        return {
            env_name("topics", "own_file"): self.topics,
            env_name("schemas", "own_directory"): self.schemas,
            env_name("clickhouse", "migrations"): self.migrations,
        }

    def next_migration(self, what: str) -> Path:
        """Return the path of the next migration of one's own."""
        numbers = [int(match[1]) for file in self.migrations.glob("*.sql") if (match := _NUMBER.fullmatch(file.name))]
        return self.migrations / f"{max([FIRST_OWN - 1, *numbers]) + 1}_{what}.sql"


def schema_text(schema: Mapping[str, Any]) -> str:
    """Write a schema as the project does: a field in each line."""
    head = json.dumps({key: value for key, value in schema.items() if key != "fields"}, ensure_ascii=False)
    fields = ",\n".join(f"  {json.dumps(field, ensure_ascii=False)}" for field in schema["fields"])
    return f'{head[:-1]},\n "fields": [\n{fields}\n ]}}\n'


def topic_text(family: str, key: str) -> str:
    """Write the entry of a family's topic; other keys take the defaults of the project's topics.yaml."""
    return f"  chimera.{family}:\n    family: {family}\n    key: {key}\n"


def own_samples(settings: Settings, catalog: Catalog) -> dict[str, Callable[[random.Random], Iterator[dict[str, Any]]]]:
    """Return the generators of sample events of one's own families that have example events, by name."""
    folder = OwnFolder.configured(settings)
    if folder is None:
        return {}
    found: dict[str, Callable[[random.Random], Iterator[dict[str, Any]]]] = {}
    for family in catalog.families:
        if family.schema.file.parent == folder.schemas and (examples := read_examples(folder.examples, family.name)):
            found[family.name] = partial(generated, family.schema, examples)
    return found


def read_examples(folder: Path, family: str) -> list[dict[str, Any]]:
    """Read the example events of a family; none if it has no file.

    Raises:
        ConfigError: a line isn't a JSON object; names file and line.
    """
    file = folder / f"{family}.jsonl"
    if not file.exists():
        return []
    events = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            events.append(_event(f"{file}:{number}", line))
    return events


def _event(where: str, line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: not JSON: {error}") from None
    if not isinstance(event, dict):
        raise ConfigError(f"{where}: expected an object of fields")
    return event
