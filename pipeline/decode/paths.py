"""Names the way by which a field, or the records of one version, are decoded."""

from collections.abc import Sequence

from pipeline.decode.plan import CompiledPlan, is_compiled
from pipeline.schema.fields import Field
from pipeline.schema.resolution import resolve
from pipeline.schema.versions import Schema

COMPILED = "compiled core"
COLUMNS = "numpy, by column"
WALK = "numpy, its items found record by record"
REFERENCE = "fastavro, record by record"


def field_path(field: Field) -> str:
    """Name the fastest way that knows the type of a field.

    The core decodes whole records: one field that it doesn't know has the whole record decoded by numpy.
    """
    if field.items is not None:
        return WALK
    return COMPILED if is_compiled(field) else COLUMNS


def version_path(schemas: Sequence[Schema], version: Schema) -> str:
    """Name the way by which records of a version are decoded to rows of the newest one.

    Args:
        schemas: all versions, oldest first.
        version: one of them.
    """
    newest = schemas[-1]
    resolution = resolve(version.raw, newest)
    if not resolution.flat:
        return REFERENCE
    if CompiledPlan.of(resolution, newest.fields) is not None:
        return COMPILED
    return WALK if any(field.items is not None for field in newest.fields) else COLUMNS
