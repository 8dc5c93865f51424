"""A real browser without windows, driven over WebDriver (W3C), which is JSON over HTTP: no package is needed."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE = 60.0
"""Seconds that a busy machine may take to start a browser."""


class Page:
    """A browser's window."""

    def __init__(self, server: str, session: str) -> None:
        self._address = f"{server}/session/{session}"

    def open(self, file: Path, width: int, height: int, *, dark: bool = False) -> None:
        """Load a file in a window of that size in pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._devtools("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", {"features": [scheme]})
        _call("POST", f"{self._address}/url", {"url": file.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function's body of JavaScript returns."""
        return _call("POST", f"{self._address}/execute/sync", {"script": script, "args": arguments})

    def errors(self) -> list[str]:
        """What the console has said since it was last asked."""
        return [each["message"] for each in _call("POST", f"{self._address}/se/log", {"type": "browser"})]

    def picture(self, file: Path) -> None:
        """All of the page, as PNG."""
        found = self._devtools("Page.captureScreenshot", {"captureBeyondViewport": True})
        file.write_bytes(base64.b64decode(found["data"]))

    def _devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        return _call("POST", f"{self._address}/goog/cdp/execute", {"cmd": command, "params": parameters})


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A window of Chromium. folder: for what it writes. Skips the test where there is none."""
    program, driver = next(filter(None, map(shutil.which, BROWSERS)), None), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no browser is installed (Debian: chromium chromium-driver)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = f"http://127.0.0.1:{port}"
    with (folder / "chromedriver.log").open("w") as log:
        process = subprocess.Popen([driver, f"--port={port}"], stdout=log, stderr=log, cwd=folder)
    try:
        _started(server)
        switches = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
        options = {"binary": program, "args": switches}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = _call("POST", f"{server}/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        try:
            yield Page(server, session)
        finally:
            _call("DELETE", f"{server}/session/{session}")
    finally:
        process.terminate()
        process.wait(30)


def _started(server: str) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            _call("GET", f"{server}/status")
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def _call(method: str, address: str, content: Any = None) -> Any:
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=_PATIENCE) as answer:
        return json.loads(answer.read())["value"]
