"""Migrations of one's own stand beside those of the package, with numbers from 1000 on."""

from pathlib import Path

import pytest

from pipeline.clickhouse.migrate import MIGRATIONS, pending
from pipeline.config import ClickHouseSettings
from pipeline.errors import ConfigError


@pytest.mark.parametrize("name", ["022_orders.sql", "orders.sql", "1000-orders.sql", "10000_orders.sql"])
def test_a_number_of_the_package_is_refused(tmp_path: Path, name: str) -> None:
    """A later release would use it; nothing on a server is asked before."""
    (tmp_path / name).write_text("SELECT 1", encoding="utf-8")
    with pytest.raises(ConfigError, match="with a number from 1000 on"):
        pending(ClickHouseSettings(migrations=tmp_path), MIGRATIONS)


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    """A folder in a file's place, a link that leads nowhere, a name that no file system takes."""
    folder, link = tmp_path / "folder", tmp_path / "link"
    (folder / "1000_orders.sql").mkdir(parents=True)
    link.mkdir()
    (link / "1000_orders.sql").symlink_to(tmp_path / "nowhere")
    for own, problem in ((folder, "Is a directory"), (link, "No such file"), (Path("a" * 5000), "File name too long")):
        with pytest.raises(ConfigError, match=f"{problem}.*; expected a folder of files that can be read") as refused:
            pending(ClickHouseSettings(migrations=own), MIGRATIONS)
        assert len(str(refused.value).splitlines()) == 1


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    """A typo in the setting would otherwise leave the migrations out."""
    with pytest.raises(ConfigError, match="nowhere"):
        pending(ClickHouseSettings(migrations=tmp_path / "nowhere"), MIGRATIONS)
