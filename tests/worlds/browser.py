"""A headless Chromium that opens pages of ours, driven over its DevTools protocol.

The protocol is JSON over a pipe. A library for it, such as Playwright, is 165 MB with its own Node.js, which
everyone who runs the tests would have to download; what is needed of it is this file.
"""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from testbed.readable import readable

CHROMIUM: Final = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
"""The browser, if one is installed."""

_PATIENCE_S: Final = 60.0


class BrowserFailed(Exception):
    """The browser ended, did not answer in time, or answered with an error."""


class Browser:
    """A browser with one tab. `errors` has the errors on the console since the page was opened."""

    def __init__(self, profile: Path, program: str | None = CHROMIUM) -> None:
        assert program is not None
        self._program = program
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
        ]
        options += ["--no-first-run", "--disable-dev-shm-usage", f"--user-data-dir={profile}", "about:blank"]
        # The browser reads commands from descriptor 3 and writes to 4.
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        with (profile / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", script, "bash", program, *options],
                pass_fds=(to_browser, from_browser),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        os.close(to_browser)
        os.close(from_browser)
        self._log = profile / "log"
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        self._events: list[str] = []
        self.errors: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._out)  # the browser ends when its commands do
        os.close(self._in)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def open(self, page: Path) -> None:
        """Load a file."""
        self.errors, self._events = [], []
        self._call("Page.navigate", url=page.resolve().as_uri())
        while "Page.loadEventFired" not in self._events:
            self._take()

    def look(self, *, width: int, dark: bool = False, medium: str = "") -> None:
        """Show the page in a window of `width` pixels. With the `medium` "print", it looks as on paper."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", media=medium, features=[scheme])

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression on the page."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise BrowserFailed(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def pdf(self) -> bytes:
        """Print the page as its style sheet asks for."""
        printed = self._call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        return base64.b64decode(printed["data"])

    def picture(self) -> bytes:
        """Return the whole page as a PNG."""
        taken = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(taken["data"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        try:
            os.write(self._out, json.dumps(message).encode() + b"\0")
        except BrokenPipeError:
            raise self._failed("it ended") from None
        while True:
            answer = self._take()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserFailed(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _take(self) -> dict[str, Any]:
        """Return the next message, and note what it says if it is an event."""
        until = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._unread:
            if not readable(self._in, max(0.0, until - time.monotonic())):
                raise self._failed(f"no answer in {_PATIENCE_S:.0f} s")
            more = os.read(self._in, 1 << 20)
            if not more:
                raise self._failed("it ended")
            self._unread += more
        text, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        event = message.get("method", "")
        self._events.append(event)
        said = message.get("params", {})
        if event == "Runtime.exceptionThrown":
            self.errors.append(str(said["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and said["type"] in ("error", "assert"):
            self.errors.append(str(said["args"]))
        elif event == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.errors.append(said["entry"]["text"])
        return message

    def _failed(self, why: str) -> BrowserFailed:
        return BrowserFailed(f"{self._program}: {why}\n{self._log.read_text(errors='replace')[-2000:]}")
