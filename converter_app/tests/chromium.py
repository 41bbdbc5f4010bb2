"""A real browser, led through the pipes of its debugging protocol: no driver and no library is needed."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# As root it has no sandbox; without the others it talks to its maker's hosts.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
_PATIENCE_S = 60.0


class Browser:
    """One browser with one page."""

    def __init__(self, commands: int, events: int) -> None:
        self._commands, self._events = commands, events
        self._unread = b""
        self._last = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        """What the console said: refused styles, failed loads."""

        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def prefer(self, language: str) -> None:
        """Has the browser ask for pages in a language."""
        self._call("Network.setExtraHTTPHeaders", headers={"Accept-Language": language})

    def show(self, width: int, height: int = 900, dark: bool = False, scale: float = 1) -> None:
        """Makes the window of a size in CSS pixels, by day or by night."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def without_scripts(self) -> None:
        """Has pages run no script of their own."""
        self._call("Emulation.setScriptExecutionDisabled", value=True)

    def open(self, url: str) -> None:
        """Opens a page and waits until it is there."""
        self._call("Page.navigate", url=url)
        self.wait_for(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})")

    def wait_for(self, condition: str) -> None:
        """Waits until an expression is true of the page, whichever is there by then."""
        deadline = time.monotonic() + _PATIENCE_S
        while not self.value(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"{condition}: not true in the browser"
            time.sleep(0.05)

    def value(self, expression: str) -> Any:
        """The value of an expression in the page; None while one page makes way for another."""
        told = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        return None if "exceptionDetails" in told else told["result"].get("value")

    def click(self, selector: str) -> None:
        """Presses the mouse's button over an element."""
        box = self.value(
            f"(e => {{ e.scrollIntoView({{block: 'center', behavior: 'instant'}});"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] })"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        assert box, f"{selector}: not there"
        for kind in ("mousePressed", "mouseReleased"):
            where = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
            self._call("Input.dispatchMouseEvent", type=kind, **where)

    def type(self, text: str) -> None:
        """Types into what has the focus."""
        self._call("Input.insertText", text=text)

    def screenshot(self, file: Path) -> None:
        """A picture of the whole page, PNG."""
        # What is loaded only when it is seen has to be seen.
        height = self.value("document.documentElement.scrollHeight")
        for top in range(0, height, 500):
            self.value(f"window.scrollTo({{top: {top}, behavior: 'instant'}})")
        self.wait_for("[...document.images].every(image => image.complete)")
        self.value("window.scrollTo({top: 0, behavior: 'instant'})")
        told = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(told["data"]))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            told = self._next(deadline)
            if told.get("method") == "Log.entryAdded":
                self.complaints.append(told["params"]["entry"]["text"])
            if told.get("id") == self._last:
                assert "error" not in told, f"{method}: {told['error']}"
                return dict(told["result"])

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._events], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self._events, 1 << 16)
            assert data, "the browser has ended"
            self._unread += data
        message, _, self._unread = self._unread.partition(b"\0")
        return dict(json.loads(message))


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser without a past."""
    theirs_in, commands = os.pipe()
    events, theirs_out = os.pipe()

    # It reads its third and writes its fourth descriptor, which a shell can arrange after the fork.
    script = f'exec chromium "$@" 3<&{theirs_in} 4>&{theirs_out}'
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            ["bash", "-c", script, "chromium", *_FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            made = Browser(commands, events)
            yield made
            made._session = None
            with contextlib.suppress(AssertionError):
                made._call("Browser.close")
        finally:
            process.kill()
            process.wait()
            os.close(commands)
            os.close(events)
