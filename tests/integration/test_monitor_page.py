"""The monitor's page in a real browser: each state is told by words, colour and shape, without a complaint."""

import asyncio
import http.client
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.chromium import Chromium, find_chromium
from support.pipeline_states import STATES, busy, clickhouse_away

from pipeline.devstack.ports import free_port
from pipeline.operations.monitor.state import PipelineState
from pipeline.operations.monitor.web import MonitorWeb
from pipeline.tool_settings import MonitorSettings

_DRAWN = "document.querySelectorAll('#path .node').length > 12"
_WORDS = {"ok": "All is well", "warning": "Needs a look", "critical": "Trouble"}
_OUT_OF_VIEW = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


class _Shown:
    """The monitor's web server with a state that a test chooses."""

    def __init__(self) -> None:
        self.state = busy()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/"
        self.web = MonitorWeb(MonitorSettings(web_port=port), lambda: self.state)
        self._thread = threading.Thread(target=self.web.serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.web.stop()
        self._thread.join()


@pytest.fixture
def shown() -> Iterator[_Shown]:
    served = _Shown()
    yield served
    served.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Directory for pictures; CHIMERA_PICTURES=1 renews those in docs/images."""
    return Path(__file__).parents[2] / "docs/images" if os.environ.get("CHIMERA_PICTURES") else tmp_path


def _check(state: PipelineState) -> str:
    """Return an expression that is true once the page says what the state is, in words, colour and shape."""
    word = f"document.getElementById('word')?.textContent === '{_WORDS[state.verdict]}'"
    return f"document.body?.dataset.verdict === '{state.verdict}' && {word} && {_DRAWN}"


def test_each_state_is_seen_at_a_glance(shown: _Shown, pictures: Path) -> None:
    """Headline, troubles with links to the runbook, cut lines and away servers; no error in the console."""

    async def look() -> None:
        async with Chromium(find_chromium()) as browser:
            for name, make in STATES.items():
                shown.state = make()
                await browser.look()
                await browser.open(shown.url)
                await browser.eventually(_check(shown.state))
                links = await browser.value("[...document.querySelectorAll('.trouble a')].map((a) => a.hash.slice(1))")
                assert links == [trouble.id for trouble in shown.state.troubles]
                assert "last backup41 min ago" in await browser.value("document.getElementById('store').textContent")
                assert not await browser.value(_OUT_OF_VIEW)
                await browser.picture(pictures / f"monitor-{name}.png")
            assert await browser.value("document.querySelectorAll('.bar').length") >= 5
            assert browser.complaints == []

    asyncio.run(look())


def test_it_is_readable_in_the_dark_and_on_a_phone(shown: _Shown, pictures: Path) -> None:
    """Nothing is wider than a phone, and the dark page is dark."""
    shown.state = clickhouse_away()

    async def look() -> None:
        async with Chromium(find_chromium()) as browser:
            await browser.look(dark=True)
            await browser.open(shown.url)
            await browser.eventually(_check(shown.state))
            assert await browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(13, 18, 32)"
            await browser.picture(pictures / "monitor-dark.png")
            await browser.look(width=390, height=844)
            await browser.open(shown.url)
            await browser.eventually(_check(shown.state))
            assert not await browser.value(_OUT_OF_VIEW)
            await browser.picture(pictures / "monitor-phone.png")
            assert browser.complaints == []

    asyncio.run(look())


def test_it_is_used_by_keyboard_and_heard(shown: _Shown) -> None:
    """The first Tab reaches the skip link; pictures have words; the headline is announced; a table stays open."""

    async def look() -> None:
        async with Chromium(find_chromium()) as browser:
            await browser.look()
            await browser.open(shown.url)
            await browser.eventually(_DRAWN)
            await browser.key("Tab")
            assert await browser.value("document.activeElement.className") == "skip"
            assert await browser.value("document.querySelector('.verdict').getAttribute('aria-live')") == "polite"
            assert await browser.value("[...document.querySelectorAll('svg[role=img]')].every((s) => s.ariaLabel)")
            await browser.value("document.querySelector('#parts details').open = true")
            shown.state = clickhouse_away()
            await browser.eventually(_check(shown.state))
            assert await browser.value("document.querySelector('#parts details').open")
            assert await browser.value("document.querySelectorAll('#parts tbody tr').length") == 28
            await browser.offline()
            await browser.eventually("document.getElementById('word').textContent.includes(\"doesn't answer\")")

    asyncio.run(look())


def test_only_its_own_script_runs(shown: _Shown) -> None:
    """The policy lets no other script or style in, and the page asks no other server."""

    async def look() -> None:
        async with Chromium(find_chromium()) as browser:
            await browser.open(shown.url)
            await browser.eventually(_DRAWN)
            script = "Object.assign(document.createElement('script'), {text: 'window.hit = 1'})"
            await browser.value(f"document.head.append({script})")
            assert await browser.value("window.hit === undefined")
            assert browser.complaints
            hosts = "[...new Set(performance.getEntriesByType('resource').map((each) => new URL(each.name).host))]"
            assert await browser.value(hosts) == [shown.url.split("/")[2]]

    asyncio.run(look())


@pytest.mark.parametrize("path", ["/nothing", "/status", "/../etc/passwd", "/page/script.js"])
def test_other_addresses_are_not_there(shown: _Shown, path: str) -> None:
    """Nothing of the file system is served."""
    connection = http.client.HTTPConnection(shown.url.split("/")[2], timeout=10)
    connection.request("GET", path)
    assert connection.getresponse().status == 404
    connection.close()
