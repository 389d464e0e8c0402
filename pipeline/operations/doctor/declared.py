"""The worker's own checks of topics.yaml and the schemas, made before anything is created or deployed."""

from collections.abc import Iterator

from pipeline.catalog import Catalog, load_catalog
from pipeline.clickhouse.declared_columns import check_declared, declared_columns
from pipeline.config import Settings
from pipeline.errors import ChimeraError, ConfigError
from pipeline.rollup.events import check_event_types


def declared_catalog(settings: Settings) -> Catalog:
    """Read topics.yaml and the schemas, as the worker will.

    Raises:
        ConfigError: the worker would refuse to start with them.
    """
    catalog = load_catalog(settings)
    for refusal in _refusals(settings, catalog):
        raise ConfigError(f"the worker would refuse to start: {refusal}")
    return catalog


def refusals(settings: Settings) -> list[str]:
    """Return the reasons why the worker would refuse topics.yaml and the schemas, each as one line."""
    try:
        return list(_refusals(settings, load_catalog(settings)))
    except ConfigError as error:
        return [str(error)]


def _refusals(settings: Settings, catalog: Catalog) -> Iterator[str]:
    tables = declared_columns(settings.clickhouse.migrations)
    for family in catalog.families:
        try:
            check_declared(family, tables)
        except ChimeraError as error:
            yield str(error)
    if settings.rollup.enabled and catalog.rollup:
        try:
            check_event_types(catalog.rollup.source)
        except ConfigError as error:
            yield str(error)
