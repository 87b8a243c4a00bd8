"""The page of `salmonn chat`, in a real browser and as a hostile client would use it. Model and page are real."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import soundfile
import torch

import browser
from manifests import TASKS, UserError
from salmonn import chat
from salmonn.generation import Reply, generate, open_model
from sounds import CORPORA, RATE, speech
from speaking_model import speaking_run

# Looked for, not imported: it takes seconds, and the quick tests here do without.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="Gradio is not installed: pip install -e '.[chat]'"
)
torch.set_num_threads(2)
TOP = Path(__file__).parents[1]
# 44.1 kHz, and a name that begins with a blank.
BARKS = CORPORA / "clotho" / "development" / " dog barks.wav"
PROMPT = "What is going on in the audio?"
MOST_MB = 1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speaking_run(tmp_path_factory.mktemp("chat") / "run")


class Served:
    """A page that `salmonn chat` shows, the folder it keeps sounds in, and a proxy that nobody should ask."""

    def __init__(self, run: Path, place: Path) -> None:
        self.place = place
        self.proxy = socket.create_server(("127.0.0.1", 0))
        self.proxy.setblocking(False)
        trap = f"http://127.0.0.1:{self.proxy.getsockname()[1]}"
        names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        environment = os.environ | dict.fromkeys(names, trap) | {"no_proxy": "127.0.0.1,localhost"}
        environment |= {"TMPDIR": str(place), "GRADIO_SHARE": "True", "GRADIO_ANALYTICS_ENABLED": "True"}
        options = ("--port", "0", "--max-upload-mb", str(MOST_MB))
        command = [sys.executable, "-m", "salmonn.cli", "chat", str(run), *options]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": TOP}
        self.process = subprocess.Popen(command, env=environment, **pipes)
        line = self.process.stdout.readline()
        assert "the page is at http://127.0.0.1:" in line, line + self.process.stdout.read()
        self.url = line.split()[4]

    def ask(self, path: str, data: bytes | None = None, **headers: str) -> tuple[int, str]:
        """Status and text of a request."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data, named), timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def upload(self, content: bytes) -> tuple[int, str]:
        form = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n%b\r\n--b--\r\n' % content
        return self.ask("gradio_api/upload", form, Content_Type="multipart/form-data; boundary=b")

    def predict(self, path: str, beams: float = 1) -> tuple[int, str]:
        """What the page would send to ask about a file that lies at `path` on the server."""
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, PROMPT, 1, beams, 5]
        (number,) = (d["id"] for d in json.loads(self.ask("config")[1])["dependencies"] if len(d["inputs"]) == 5)
        body = {"data": data, "fn_index": number, "session_hash": "s"}
        code, told = self.ask("gradio_api/queue/join?", json.dumps(body).encode(), Content_Type="application/json")
        if code != 200:
            return code, told
        return self.ask("gradio_api/queue/data?session_hash=s")


@pytest.fixture(scope="module")
def served(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    page = Served(run, tmp_path_factory.mktemp("kept"))
    yield page
    page.process.kill()
    page.process.wait()


@pytest.mark.slow
def test_the_page_answers_as_the_command_does(served: Served, run: Path, tmp_path: Path) -> None:
    if browser.find() is None:
        # A browser comes from no package index; the tests of the page's server need none.
        pytest.skip(f"no browser here: none of {', '.join(browser.NAMES)} is on the PATH")
    (tmp_path / "text.wav").write_text("not a sound")
    soundfile.write(tmp_path / "large.wav", speech(40), RATE)
    short = {"max_new_tokens": 12}
    expected = [
        generate(run, [BARKS], PROMPT, **options)[0]
        for options in ({}, short, short | {"beams": 1}, short | {"beams": 1, "lora_scale": 0.0})
    ]
    assert len(set(expected)) == 4
    asyncio.run(visit(served.url, tmp_path, expected))


async def visit(url: str, place: Path, expected: list[str]) -> None:
    """What a person does on the page: asks too soon, uploads, types, turns the knobs, records, errs."""
    field, told = "document.querySelector('#answer textarea').value", "document.querySelector('#told textarea').value"
    async with browser.open_page(url, place / "profile") as page:

        async def ask(before: str = "") -> str:
            await page.click("#ask")
            return await page.until(f"{field} != {json.dumps(before)} && {field}")

        await page.click("#ask")
        assert "there is no sound yet" in await page.until(told)
        await page.upload("#sound input[type=file]", BARKS)
        await page.until("!!document.querySelector('#sound [data-testid^=waveform] audio, #sound #waveform')")
        await page.write("#prompt textarea", PROMPT)
        answer = ""
        for knob, value in ((None, ""), ("tokens", "12"), ("beams", "1"), ("scale", "0")):
            if knob is not None:
                await page.write(f"#{knob} input[type=number]", value)
            answer = await ask(answer)
            assert answer == expected.pop(0)
            assert await page.js(told) == "1.0 s heard; the answer was cut off at the longest length"

        await page.write("#prompt textarea", "  ")
        await page.click("#ask")
        assert (await page.until(f"!{told}.includes('heard') && {told}")).startswith("the prompt is empty; ask")
        assert await page.js(field) == ""
        shown = "[...document.querySelectorAll('button')].find(b => b.innerText == 'Describe this piece of music.')"
        await page.js(f"{shown}.click()")
        await page.until("document.querySelector('#prompt textarea').value == 'Describe this piece of music.'")

        # The browser's own microphone, which beeps.
        await page.click("#sound button[aria-label=Clear]")
        await page.click("#sound button[aria-label='Record audio']")
        await page.click("#sound button.record-button")
        await page.until("getComputedStyle(document.querySelector('#sound button.stop-button')).display != 'none'")
        await asyncio.sleep(1)
        await page.click("#sound button.stop-button")
        await page.until("!!document.querySelector('#sound #waveform')")
        assert await ask()
        seconds = float((await page.js(told)).split()[0])
        assert 0.5 < seconds < 20

        assert page.complaints == []
        assert len(page.asked) > 20
        assert [one for one in page.asked if not one.startswith((url, f"blob:{url}", "data:"))] == []

        await page.click("#sound button[aria-label=Clear]")
        await page.click("#sound button[aria-label='Upload file']")
        await page.upload("#sound input[type=file]", place / "text.wav")
        await page.until("!!document.querySelector('#sound [data-testid^=waveform]')")
        await page.click("#ask")
        told_of = await page.until(f"!{told}.includes('heard') && {told}")
        assert told_of == "cannot use the audio file 'text.wav': no decoder recognizes the file"

        await page.click("#sound button[aria-label=Clear]")
        await page.upload("#sound input[type=file]", place / "large.wav")
        await page.until("document.body.innerText.includes('maximum allowed size')")


@pytest.mark.slow
def test_only_this_machine_is_listened_to_and_nobody_is_called(served: Served) -> None:
    code, page = served.ask("")
    assert code == 200 and "gradio_config" in page
    found = psutil.Process(served.process.pid).net_connections()
    assert {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
    assert {one.raddr.ip for one in found if one.raddr} <= {"127.0.0.1"}
    with pytest.raises(BlockingIOError):
        served.proxy.accept()
    with urllib.request.urlopen(served.url) as answer:
        assert answer.headers["content-security-policy"] == chat.POLICY
    assert served.ask("", Host="evil.example")[0] == 400


@pytest.mark.slow
def test_a_client_reads_no_file_of_the_server_and_asks_about_none(served: Served, run: Path) -> None:
    (checkpoint,) = run.rglob("model.safetensors")
    for path in ("/etc/passwd", str(run / "config.json"), str(checkpoint), "pyproject.toml", str(BARKS)):
        assert served.ask(f"gradio_api/file={urllib.request.quote(path)}")[0] in (403, 404), path
    # What lies elsewhere, and an address.
    kept = set(served.place.rglob("*"))
    for path in (str(BARKS), str(checkpoint), "http://127.0.0.1:1/a.wav", "https://192.0.2.1/a.wav"):
        code, told = served.predict(path)
        assert code == 200 and '"success":false' in told and "heard" not in told, told
    assert set(served.place.rglob("*")) == kept


@pytest.mark.slow
def test_no_address_is_opened(run: Path) -> None:
    import gradio

    page = chat.make_page(open_model(run), "run")
    (sound,) = (block for block in page.blocks.values() if block.elem_id == "sound")
    with pytest.raises(gradio.Error, match="must be uploaded"):
        asyncio.run(sound.async_move_resource_to_block_cache("https://192.0.2.1/a.wav"))


@pytest.mark.slow
def test_uploads_are_limited_and_gone_when_the_page_is(run: Path, served: Served) -> None:
    content = BARKS.read_bytes()
    code, told = served.upload(content)
    assert code == 200
    (kept,) = json.loads(told)
    assert Path(kept).read_bytes() == content and Path(kept).is_relative_to(served.place)
    # The same question as the page's, by hand, and one that no slider allows.
    assert "1.0 s heard" in served.predict(kept)[1]
    told = served.predict(kept, beams=1000)[1]
    assert '"success":false' in told and "heard" not in told
    code, told = served.upload(bytes(MOST_MB * 1_000_000 + 1))
    assert code == 413 and "maximum allowed size" in told
    served.process.terminate()
    assert served.process.wait(20) == 0
    assert list(served.place.rglob("*")) == []


def test_what_keeps_the_page_from_opening_is_one_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen at '127.0.0.1', port {port}: .*--port 0"):
            chat.serve(str(run), "", "127.0.0.1", port, 50)
    for host, port in (("127.0.0.1", 70_000), ("no.such.host.invalid", 0), ("192.0.2.1", 0)):
        with pytest.raises(UserError, match="cannot listen at"):
            chat.listening(host, port)
    with pytest.raises(UserError, match="--max-upload-mb is 0"):
        chat.serve(str(run), "", "127.0.0.1", 0, 0)
    with pytest.raises(UserError, match="--config is for a released"):
        chat.serve(str(run), "tiny", "127.0.0.1", 0, 50)
    with pytest.raises(UserError, match="is not the folder of a run"):
        chat.serve(str(run / "checkpoints"), "", "127.0.0.1", 0, 50)
    monkeypatch.setattr(chat.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs Gradio.*pip install -e '\.\[chat\]'"):
        chat.serve(str(run), "", "127.0.0.1", 0, 50)


def test_examples_are_prompts_of_tasks_that_leave_nothing_open() -> None:
    assert len(chat.examples()) >= 12
    for prompt in chat.examples():
        assert any(prompt in task.prompts for task in TASKS.values())
        assert "{}" not in prompt


def test_what_is_said_of_an_answer() -> None:
    def said(seconds: float, cut: float, finished: bool) -> str:
        return chat.remark(Reply(path="", prompt="", answer="", finished=finished, seconds=seconds, cut=cut))

    assert said(2.5, 0.0, True) == "2.5 s heard"
    assert said(30.0, 1.25, True) == "30.0 s heard, the 1.2 s behind them not"
    assert said(1.0, 0.0, False) == "1.0 s heard; the answer was cut off at the longest length"
    assert [chat.is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "lab")] == [
        *(True, True, True),
        *(False, False),
    ]
