"""A real headless Chromium, driven through its DevTools protocol; no library is needed but aiohttp."""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest

_START_SECONDS = 60.0
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium_here() -> str | None:
    """Return the program; None where there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)


def find_chromium() -> str:
    """Return the program; skip the test where there is none."""
    if (found := chromium_here()) is None:
        pytest.skip("no Chromium on this machine: install Debian's package chromium, or set CHROMIUM")
    return found


class Chromium:
    """One browser with one tab.

    Args:
        program: path of the browser.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        self._number = 0
        self.complaints: list[str] = []
        """Errors, warnings and exceptions of pages so far."""

    async def __aenter__(self) -> Self:
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        place = ["--remote-debugging-port=0", f"--user-data-dir={self._home.name}", "about:blank"]
        self._process = subprocess.Popen(  # noqa: ASYNC220 (it returns at once)
            [self._program, *options, *place],
            env=os.environ | {"TMPDIR": self._home.name},  # a killed browser leaves a directory there
            stderr=subprocess.DEVNULL,
        )
        self._session = aiohttp.ClientSession()
        port = await self._port()
        async with self._session.get(f"http://127.0.0.1:{port}/json") as answer:
            tab = next(each for each in await answer.json() if each["type"] == "page")
        self._socket = await self._session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0)
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        self._process.terminate()
        self._process.wait()
        self._home.cleanup()

    async def _port(self) -> int:
        file = Path(self._home.name, "DevToolsActivePort")
        # ruff: noqa: ASYNC240 (files of this machine, in tests)
        for _ in range(int(_START_SECONDS / 0.1)):
            if file.exists() and (words := file.read_text(encoding="utf-8").split()):
                return int(words[0])
            await asyncio.sleep(0.1)
        raise AssertionError("Chromium didn't start")

    async def call(self, method: str, **params: Any) -> Mapping[str, Any]:
        """Call a method of the protocol; note what the page complains about meanwhile."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            message = json.loads((await self._socket.receive(_START_SECONDS)).data)
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: Mapping[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, message: Mapping[str, Any]) -> None:
        event, params = message.get("method"), message.get("params", {})
        if event == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
            self.complaints.append(str(params["args"]))
        elif event == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            self.complaints.append(str(params["entry"]["text"]))

    async def look(self, *, width: int = 1360, height: int = 1000, dark: bool = False, scale: float = 1) -> None:
        """Choose the size of the window, and light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        calm = {"name": "prefers-reduced-motion", "value": "reduce"}  # a picture of a movement differs each time
        await self.call("Emulation.setEmulatedMedia", features=[scheme, calm])

    async def open(self, url: str) -> None:
        """Open a page."""
        await self.call("Page.navigate", url=url)

    async def value(self, expression: str) -> Any:
        """Return the value of an expression of the page."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def eventually(self, expression: str) -> Any:
        """Wait until an expression of the page is true, and return its value."""
        for _ in range(int(_START_SECONDS / 0.1)):
            if value := await self.value(expression):
                return value
            await asyncio.sleep(0.1)
        raise AssertionError(expression)

    async def offline(self) -> None:
        """Cut the browser off from every server."""
        await self.call("Network.enable")
        none = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        await self.call("Network.emulateNetworkConditions", offline=True, **none)

    async def picture(self, file: Path) -> None:
        """Write a picture of the whole page as PNG."""
        size = (await self.call("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        taken = await self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(taken["data"]))

    async def key(self, name: str) -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=9)
