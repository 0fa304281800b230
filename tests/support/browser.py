"""Headless Chromium driven by the DevTools protocol over a pipe: no driver, no port, no network."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
_ANSWER_SECONDS = 300.0  # also on a machine that starts Chromium only now and then


class Browser:
    """A Chromium with one page; events are kept in order.

    Args:
        profile: a new folder.
    """

    def __init__(self, profile: Path) -> None:
        read_ours, write_theirs = os.pipe()
        read_theirs, write_ours = os.pipe()
        command = (
            f'exec "$0" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-dev-shm-usage '
            f"--disable-background-networking --disable-component-update --disable-sync --remote-debugging-pipe "
            f'--user-data-dir="$1" about:blank 3<&{read_theirs} 4>&{write_theirs}'
        )
        self._process = subprocess.Popen(
            ["bash", "-c", command, str(CHROMIUM), str(profile)],  # dash knows descriptors of one digit only
            pass_fds=(read_theirs, write_theirs),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_theirs)
        os.close(write_theirs)
        self._read, self._write, self._left, self._number = read_ours, write_ours, b"", 0
        self.events: list[dict[str, Any]] = []
        self._session: str | None = None
        targets = self("Target.getTargets")["targetInfos"]
        target = next(t["targetId"] for t in targets if t["type"] == "page")
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline:
            reply = self._receive(deadline)
            if reply.get("id") == self._number:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']}")
                result: dict[str, Any] = reply["result"]
                return result
            self.events.append(reply)
        raise TimeoutError(method)

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._left:
            if not select.select([self._read], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise TimeoutError("Chromium says nothing")
            more = os.read(self._read, 1 << 20)
            if not more:
                raise EOFError("Chromium has ended")
            self._left += more
        line, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def open(self, page: Path | str, width: int = 1280, height: int = 900, *, script: bool = True) -> None:
        """Load a file in a window of so many pixels."""
        self("Emulation.setFocusEmulationEnabled", enabled=True)  # a page in no window gets no focus events
        self("Emulation.setScriptExecutionDisabled", value=not script)
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.events.clear()
        self("Page.navigate", url=page.as_uri() if isinstance(page, Path) else page)
        self.wait(lambda: any(e.get("method") == "Page.loadEventFired" for e in self.events))

    def wait(self, done: Callable[[], bool]) -> None:
        """Until something holds."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError("it did not come true")
            self("Browser.getVersion")  # takes events in
            time.sleep(0.02)

    def js(self, expression: str) -> Any:
        """The value of an expression in the page (works where the page's own scripts are off, too)."""
        answer = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def key(self, name: str) -> None:
        """Press a key, such as Tab, Enter, ArrowRight."""
        text = {"Enter": "\r", " ": " "}.get(name, "")
        code = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "Home": 36, "End": 35}
        code |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        event = {"key": name, "code": name, "windowsVirtualKeyCode": code[name], "text": text}
        self("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **event)
        self("Input.dispatchKeyEvent", type="keyUp", **event)

    def media(self, media: str = "", **features: str) -> None:
        """Emulate a medium ("print") and features such as prefers_color_scheme="dark"."""
        media_features = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self("Emulation.setEmulatedMedia", media=media, features=media_features)

    def screenshot(self, file: Path, *, whole: bool = True) -> None:
        """The page, or what the window shows of it, as PNG."""
        picture = self("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(picture["data"]))

    def pdf(self) -> bytes:
        """The page printed."""
        return base64.b64decode(
            self("Page.printToPDF", printBackground=False, paperWidth=8.27, paperHeight=11.69)["data"]
        )

    def close(self) -> None:
        """End it."""
        os.close(self._write)
        os.close(self._read)
        self._process.terminate()
        self._process.wait()
