"""A browser without a window: Chromium, driven by its own DevTools protocol, so that no driver has to be installed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SWITCHES = (
    "--headless=new",
    "--no-sandbox",  # which a container's root has not
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--window-size=1200,1000",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--remote-debugging-port=0",
)


def find() -> str | None:
    """The path of a browser, None if there is none here."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """A tab: what it asked the network for, and what it complained of."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.numbers, self.session = socket, itertools.count(1), ""
        self.answers: dict[int, asyncio.Future[Any]] = {}
        self.asked: list[str] = []
        self.complaints: list[str] = []

    async def listen(self) -> None:
        """Note what the browser tells, until it is gone."""
        async for message in self.socket:
            told = json.loads(message.data)
            if "id" in told:
                self.answers.pop(told["id"]).set_result(told)
            else:
                self.note(told["method"], told["params"])

    def note(self, event: str, told: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        elif event == "Network.webSocketCreated":
            self.asked.append(told["url"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.complaints.append(json.dumps(told["args"]))
        elif event == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")

    async def call(self, method: str, **values: Any) -> dict[str, Any]:
        """Give an order of the protocol and return what comes of it."""
        number = next(self.numbers)
        self.answers[number] = asyncio.get_running_loop().create_future()
        about = {"sessionId": self.session} if self.session else {}
        await self.socket.send_json({"id": number, "method": method, "params": values} | about)
        told = await asyncio.wait_for(self.answers[number], 30)
        assert "error" not in told, (method, told["error"])
        return told["result"]

    async def js(self, code: str) -> Any:
        """Return the value of an expression, awaited."""
        told = await self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, code: str, seconds: float = 60) -> Any:
        """Return the first value of an expression that is true."""
        deadline = time.monotonic() + seconds
        while not (value := await self.js(code)):
            assert time.monotonic() < deadline, (code, self.complaints, await self.js("document.body.innerText"))
            await asyncio.sleep(0.1)
        return value

    async def click(self, selector: str) -> None:
        """Press a mouse button in the middle of an element, where a person would see it."""
        find = f"document.querySelector({json.dumps(selector)})"
        await self.until(f"!!{find} && !{find}.disabled")
        await self.js(f"{find}.scrollIntoView({{block: 'center'}})")
        box = await self.js(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({find}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            place = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
            await self.call("Input.dispatchMouseEvent", type=kind, **place)

    async def write(self, selector: str, text: str) -> None:
        """Put text into a field in place of what is there, as keys would."""
        await self.click(selector)
        await self.js(f"document.querySelector({json.dumps(selector)}).select()")
        await self.call("Input.insertText", text=text)

    async def upload(self, selector: str, path: Path) -> None:
        """Choose a file for an input of that kind."""
        await self.until(f"!!document.querySelector({json.dumps(selector)})")
        root = (await self.call("DOM.getDocument"))["root"]["nodeId"]
        node = (await self.call("DOM.querySelector", nodeId=root, selector=selector))["nodeId"]
        await self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)


@contextlib.asynccontextmanager
async def open_page(url: str, profile: Path) -> AsyncIterator[Page]:
    """Start the browser with an empty profile in the folder `profile`, and open a page; ends both."""
    program = find()
    assert program is not None
    arguments = [*SWITCHES, f"--user-data-dir={profile}", "about:blank"]
    quiet = asyncio.subprocess.DEVNULL
    browser = await asyncio.create_subprocess_exec(program, *arguments, stdout=quiet, stderr=asyncio.subprocess.PIPE)
    assert browser.stderr is not None
    try:
        async with asyncio.timeout(60):
            while b"DevTools listening on" not in (line := await browser.stderr.readline()):
                assert line, "the browser ended before it listened"
        address = line.decode().split()[-1]
        async with aiohttp.ClientSession() as web, web.ws_connect(address, max_msg_size=0) as socket:
            page = Page(socket)
            listening = asyncio.create_task(page.listen())
            draining = asyncio.create_task(browser.stderr.read())
            target = (await page.call("Target.createTarget", url="about:blank"))["targetId"]
            page.session = (await page.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
                await page.call(f"{domain}.enable")
            await page.call("Page.navigate", url=url)
            yield page
            listening.cancel()
            draining.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            browser.terminate()
        await browser.wait()
