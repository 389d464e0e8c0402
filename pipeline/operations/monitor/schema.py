"""JSON schema of /status.json, made of the model; `python -m pipeline.operations.monitor.schema` prints it."""

import json
import sys
from typing import Any

from pydantic import TypeAdapter

from pipeline.operations.monitor.state import PipelineState


def document() -> dict[str, Any]:
    """Return the schema."""
    schema = TypeAdapter(PipelineState).json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "State of a Chimera pipeline"}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), indent=2) + "\n")
