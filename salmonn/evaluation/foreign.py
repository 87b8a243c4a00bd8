"""Models that are not ours, asked the same questions: ``openai:NAME`` at an endpoint, ``hf:FOLDER`` of transformers.

They answer as a run does (see `Respondent`), so that their answers come into the same files, go on after a kill as
those do, and are scored alike.
"""

from __future__ import annotations

import asyncio
import base64
import io
import wave
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from manifests.chat import TOKEN, Chat, Choice, Limits, Unanswered
from manifests.errors import Failed, UserError
from shards.audio import to_pcm
from shards.flac import RATE

# What needs torch is imported where it is used: a mistake in an address is told at once.
if TYPE_CHECKING:
    from salmonn.evaluation.request import Decoding
    from salmonn.evaluation.respondent import Reply, Respondent


def open_foreign(model: str, url: str = "", limits: Limits | None = None) -> Respondent:
    """Return who answers as `model`, asked at `url` if behind an endpoint; UserError if there can be no such model."""
    kind, _, name = model.partition(":")
    if kind == "openai" and name:
        if not url:
            raise UserError(f"--model {model} needs --url, the endpoint's address, for example https://host/v1")
        return EndpointRespondent(url, name, limits)
    if kind == "hf" and name:
        if url:
            raise UserError(f"--url is for openai: models; {model} is a folder")
        from salmonn.evaluation.huggingface import FolderRespondent

        return FolderRespondent(name)
    raise UserError(f"--model is {model!r}; it must be openai:NAME with --url, or hf:FOLDER")


class EndpointRespondent:
    """A model behind any OpenAI-compatible chat endpoint that takes audio; the token is in the environment."""

    def __init__(self, url: str, model: str, limits: Limits | None = None) -> None:
        """Ask `model` at `url`; UserError for an address that is none. Nothing is asked yet."""
        self.model, self.limits = model, limits or Limits()
        self.url = url
        self.chat()

    def chat(self) -> Chat:
        """Return a connection to the endpoint, not opened yet."""
        return Chat(self.url, self.model, self.limits, "--url", TOKEN)

    @property
    def name(self) -> str:
        """What its answers call it."""
        return f"openai:{self.model}"

    def reply(
        self, waves: Sequence[npt.NDArray[np.float32]], prompts: Sequence[str], decoding: Decoding
    ) -> list[Reply]:
        """Return the answers, several asked for at a time; UserError for a search that an endpoint does not make.

        Failed if one gets no answer after all retries: none is made up for it.
        """
        from salmonn.evaluation.respondent import Reply

        if decoding.beams != 1 or decoding.lora_scale != 1:
            raise UserError(
                f"{self.name} can answer with --beams 1 and LoRA scale 1 only, not {decoding.beams} and "
                f"{decoding.lora_scale:g}: an endpoint offers neither"
            )
        requests = [messages_of(heard, prompt) for heard, prompt in zip(waves, prompts, strict=True)]
        said = asyncio.run(self.ask_all(requests, decoding.max_new_tokens))
        return [Reply(answer=(one.message.content or "").strip(), finished=one.finish_reason == "stop") for one in said]

    async def ask_all(self, requests: list[list[dict[str, Any]]], longest: int) -> list[Choice]:
        """Return what is said to each request, in order."""
        turn = asyncio.Semaphore(self.limits.parallel)

        async def ask(messages: list[dict[str, Any]]) -> Choice:
            async with turn:
                return await chat.complete(messages, max_tokens=longest)

        async with self.chat() as chat:
            asked = [asyncio.create_task(ask(messages)) for messages in requests]
            try:
                return await asyncio.gather(*asked)
            except Unanswered as nothing:
                raise Failed(
                    f"--url {chat.url}, model {self.model!r}: a question got no answer ({nothing}); all batches "
                    "before are kept, run the same command again to go on"
                ) from None
            finally:
                for one in asked:
                    one.cancel()
                await asyncio.gather(*asked, return_exceptions=True)


def messages_of(heard: npt.NDArray[np.float32], prompt: str) -> list[dict[str, Any]]:
    """Return the messages that ask `prompt` of a sound: as the API's reference has it, base64 of a WAV file."""
    sound = {"data": base64.b64encode(wav(heard)).decode(), "format": "wav"}
    return [
        {
            "role": "user",
            "content": [{"type": "input_audio", "input_audio": sound}, {"type": "text", "text": prompt}],
        }
    ]


def wav(heard: npt.NDArray[np.float32]) -> bytes:
    """Return a sound (mono, 16 kHz, in [-1, 1]) as a WAV file of 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(to_pcm(heard).astype("<i2").tobytes())
    return file.getvalue()
