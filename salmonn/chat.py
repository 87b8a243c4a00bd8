"""The page of `salmonn chat`: a sound from microphone or file, a prompt, the model's answer. The one room of Gradio.

It listens on this machine alone unless told otherwise, calls out to nobody, and keeps a sound for an hour at most.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests import TASKS
from manifests.console import console
from manifests.errors import UserError
from salmonn.generation import Question, Reply, demand_source, listen, open_model, reply
from salmonn.interrupt import stop_signals

if TYPE_CHECKING:
    from salmonn.model import Salmonn

KEPT_SECONDS = 3600
"""How long a sound stays on disk, to be asked about again."""
WIDEST, LONGEST_ANSWER = 8, 512
"""Beams and tokens that the page's sliders go up to."""
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:"
"""A browser that heeds it (Content Security Policy) can load nothing from anywhere else, and send nothing there."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]


def serve(source: str, config: str, host: str, port: int, max_upload_mb: int) -> None:
    """Show the page until SIGINT or SIGTERM; UserError for what is missing, told before the model is opened."""
    if max_upload_mb < 1:
        raise UserError(f"--max-upload-mb is {max_upload_mb}; it must be at least 1")
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs Gradio, which is not installed: pip install -e '.[chat]'")
    demand_source(source, config)
    with listening(host, port) as door, tempfile.TemporaryDirectory(prefix="salmonn-chat-") as kept:
        # Gradio reads these when it is imported. The page says nothing of itself to anybody.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_TEMP_DIR": kept}
        import uvicorn

        app = make_app(open_model(source, config), Path(source).name, host, max_upload_mb)
        # Open pages keep a connection each, for which a server would wait when it is to end.
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        shown = f"[{host}]" if ":" in host else host
        console.print(f"the page is at http://{shown}:{door.getsockname()[1]}/ (Ctrl-C ends it)", markup=False)
        with stop_signals():
            server.run(sockets=[door])


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; UserError if it cannot."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot listen at {host!r}, port {port}: {why}; --port 0 takes a free port") from None


def make_app(model: Salmonn, name: str, host: str, max_upload_mb: int) -> Any:
    """Return the page as an ASGI application."""
    import gradio
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(openapi_url=None)
    page = make_page(model, name)
    # Gradio 6.31 looks only here whether a file that a client names was uploaded, and mounting leaves it false: whoever
    # reaches the page could then be told about any sound on this machine, and fetch a copy of any file.
    page.has_launched = True
    gradio.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=host,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=False,
        max_file_size=max_upload_mb * 1_000_000,
    )
    if is_loopback(host):
        # A site elsewhere could point its own name at this machine, and read what the page answers.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[host, "localhost", "127.0.0.1"])
    app.add_middleware(Closed)
    return app


def make_page(model: Salmonn, name: str) -> Any:
    """Return the page as Gradio's blocks."""
    import gradio

    def ask(sound: str | None, prompt: str, scale: float, beams: float, tokens: float) -> tuple[str, str]:
        """Return the answer and what there is to say of it, or no answer and why."""
        try:
            if not sound:
                raise UserError("there is no sound yet; record one or choose a file")
            question = Question(prompt=prompt, beams=int(beams), max_new_tokens=int(tokens), lora_scale=scale)
            (one,) = reply(model, [listen(sound)], question)
        except UserError as error:
            # Where the page keeps a file is nobody's concern.
            return "", str(error).replace(sound, Path(sound).name) if sound else str(error)
        return one.answer, remark(one)

    with gradio.Blocks(
        title=f"salmonn chat: {name}", analytics_enabled=False, delete_cache=(KEPT_SECONDS // 4, KEPT_SECONDS)
    ) as page:
        with gradio.Row():
            with gradio.Column():
                sound = gradio.Audio(
                    sources=["upload", "microphone"],
                    type="filepath",
                    label="Sound: the first 30 seconds are heard",
                    elem_id="sound",
                    buttons=[],
                )
                hold_to_uploads(sound)
                prompt = gradio.Textbox(label="Prompt", lines=2, elem_id="prompt", placeholder=examples()[0])
                gradio.Examples(
                    [[one] for one in examples()], [prompt], label="Prompts of the tasks", examples_per_page=20
                )
            with gradio.Column():
                button = gradio.Button("Ask", variant="primary", elem_id="ask")
                answer = gradio.Textbox(label="Answer", lines=8, interactive=False, elem_id="answer")
                told = gradio.Textbox(label="About it", interactive=False, elem_id="told")
                scale = gradio.Slider(0, 1, 1, step=0.05, label="LoRA scale: 1 as trained, 0 without", elem_id="scale")
                beams = gradio.Slider(1, WIDEST, 4, step=1, label="Beams: 1 is greedy", elem_id="beams")
                tokens = gradio.Slider(
                    1, LONGEST_ANSWER, 200, step=1, label="Longest answer, in tokens", elem_id="tokens"
                )
        gradio.on(
            [button.click, prompt.submit],
            ask,
            [sound, prompt, scale, beams, tokens],
            [answer, told],
            api_visibility="private",
            # One at a time: the scale of LoRA is the model's, for whoever asks.
            concurrency_limit=1,
        )
    return page


def hold_to_uploads(sound: Any) -> None:
    """Let a component take what was uploaded, and no address, which Gradio would download from."""
    import gradio

    usual = sound.async_move_resource_to_block_cache

    async def uploaded(path: str | Path | None) -> str | None:
        if "://" in str(path):
            raise gradio.Error("a sound must be uploaded; addresses are not opened")
        kept: str | None = await usual(path)
        return kept

    sound.async_move_resource_to_block_cache = uploaded


def examples() -> tuple[str, ...]:
    """Return a prompt of every task whose prompts leave nothing open."""
    prompts = (task.prompts[0] for task in TASKS.values())
    return tuple(prompt for prompt in prompts if "{}" not in prompt)


def remark(one: Reply) -> str:
    """Say of an answer how much was heard for it, and whether it is whole."""
    heard = f"{one.seconds:.1f} s heard"
    if one.cut:
        heard += f", the {one.cut:.1f} s behind them not"
    return heard + ("" if one.finished else "; the answer was cut off at the longest length")


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Closed:
    """Middleware that puts POLICY on everything the page is made of."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its response back with one header more."""

        async def closed(message: Scope) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, closed)
