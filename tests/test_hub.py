"""The Hub's corpora, against a server on loopback that speaks the Hub's API as far as the library asks for it."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from conftest import digests
from manifests import Failed, UserError, load_corpus
from pipelines.fetching import hub_client
from pipelines.fetching.hub import HUB_CORPORA, HubPlan, fetch_hub, hub_status, plan_hub

CANARY = "hf_CanaryCanaryCanary"
COMMITS = ("1" * 40, "2" * 40)


class Hub(http.server.ThreadingHTTPServer):
    """A Hub with one dataset. Large files are at another address, as they are at its storage."""

    daemon_threads = True

    def __init__(self, name: str, content: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.name, self.content, self.commit = name, content, COMMITS[0]
        self.gated = self.storage = self.broken = None
        self.fault = ""
        self.asked: list[tuple[str, str, str | None]] = []
        self.sent = 0
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers for it."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, code: int, body: bytes = b"", told: int | None = None, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if told is None else told))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            self.server.sent += len(body)
            if told is not None:
                self.close_connection = True

    def do_GET(self) -> None:
        hub, path = self.server, urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        token = self.headers.get("Authorization")
        hub.asked.append((self.command, path, token))
        if path.startswith("/storage/"):
            return self.send_file(path.removeprefix("/storage/"))
        if hub.fault.isdecimal():
            code, hub.fault = int(hub.fault), ""
            return self.answer(code)
        if hub.name not in path:
            return self.answer(404, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        if token and token != f"Bearer {CANARY}":
            return self.answer(401, X_Error_Message="Invalid credentials in Authorization header")
        api, _, rest = path.removeprefix("/api").removeprefix(f"/datasets/{hub.name}").lstrip("/").partition("/")
        if path.startswith("/api/") and api == "revision":
            if rest not in ("main", hub.commit):
                return self.answer(404, X_Error_Code="RevisionNotFound")
            return self.send_json({"id": hub.name, "sha": hub.commit, "gated": "auto" if hub.gated else False})
        if path.startswith("/api/") and api == "tree":
            return self.send_json([self.entry(name, data) for name, data in hub.content.items()])
        if hub.gated and not token:
            return self.answer(401, X_Error_Code="GatedRepo", X_Error_Message="Access to dataset is restricted")
        if hub.gated == "not accepted":
            return self.answer(403, X_Error_Code="GatedRepo", X_Error_Message="not in the authorized list")
        if path.startswith("/api/") and api == "auth-check":
            return self.send_json({})
        name = rest.removeprefix(f"{hub.commit}/")
        if name not in hub.content:
            return self.answer(404, X_Error_Code="EntryNotFound")
        entry = self.entry(name, hub.content[name])
        etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        about = {"X_Repo_Commit": hub.commit, "X_Linked_ETag": f'"{etag}"', "X_Linked_Size": str(entry["size"])}
        if "lfs" in entry and hub.storage:
            return self.answer(302, Location=f"{hub.storage.url}/storage/{urllib.parse.quote(name)}?sig=x", **about)
        return self.send_file(name, ETag=f'"{etag}"', **about)

    def entry(self, name: str, data: bytes) -> dict:
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        made = {"type": "file", "oid": blob, "size": len(data), "path": name}
        if name.endswith((".gz", ".zip", ".csv")):
            made["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return made

    def send_json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

    def send_file(self, name: str, **headers: str) -> None:
        hub, data = self.server, self.server.content[name]
        size, first, code = len(data), 0, 200
        asked = self.headers.get("Range")
        if asked and hub.fault != "no ranges":
            first, code = int(asked.removeprefix("bytes=").rstrip("-")), 206
            headers["Content_Range"] = f"bytes {first}-{size - 1}/{size}"
        body, told = data[first:], None
        if hub.fault == "flip":
            body = bytes([body[0] ^ 1]) + body[1:]
        if hub.fault == "html":
            body = b"<html>sorry</html>"
        if hub.fault == "break" and self.command == "GET":
            body, told, hub.fault = body[: len(body) // 2], len(body), ""
        self.answer(code, body, told, **headers)


def small_wavcaps() -> dict[str, bytes]:
    records = [{"id": "9001", "caption": "Rain falls.", "duration": 3.0}]
    return {
        "README.md": b"a card",
        "json_files/SoundBible/sb_final.json": json.dumps({"data": records}).encode(),
        "json_files/BBC_Sound_Effects/bbc_final.json": b'{"data": []}',
        "json_files/blacklist/blacklist_exclude_test_ac.json": b"{}",
        "Zip_files/SoundBible/SoundBible.zip": os.urandom(300_000),
        "Zip_files/BBC_Sound_Effects/BBC_Sound_Effects.z01": b"part of a zip",
        "Zip_files/BBC_Sound_Effects/BBC_Sound_Effects.zip": b"end of a zip",
    }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub("cvssp/WavCaps", small_wavcaps())
    storage = Hub("", server.content)
    server.storage = storage
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    # Read once, when the library is imported; make sets it for all tests.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_client, "WAITS", (0.01, 0.01))
    yield server
    server.shutdown()
    storage.shutdown()


SPLIT = ("soundbible",)
NEEDED = {
    "json_files/SoundBible/sb_final.json",
    "json_files/blacklist/blacklist_exclude_test_ac.json",
    "Zip_files/SoundBible/SoundBible.zip",
}


def raw(root: Path) -> dict[str, str]:
    return digests(root / "raw/wavcaps") if (root / "raw/wavcaps").exists() else {}


def parts(root: Path) -> list[Path]:
    return list((root / "fetch/hub").rglob("*.part"))


def test_a_split_is_listed_and_fetched_at_one_commit(hub: Hub, tmp_path: Path) -> None:
    plan = plan_hub("wavcaps", SPLIT, str(tmp_path))
    assert {file.path for file in plan.files} == NEEDED
    assert plan.bytes == sum(len(hub.content[name]) for name in NEEDED)
    assert plan.commit == COMMITS[0]
    assert not list(tmp_path.iterdir()), "a plan writes nothing"
    told: list[tuple[str, int]] = []
    fetched = fetch_hub(plan, str(tmp_path), lambda *one: told.append(one))
    assert told == [(file.path, file.bytes) for file in fetched]
    assert raw(tmp_path) == {name: hashlib.sha256(hub.content[name]).hexdigest() for name in NEEDED}
    assert hub_status("wavcaps", SPLIT, str(tmp_path)) == (3, 3, 0)
    asked = len(hub.asked) + len(hub.storage.asked)
    assert fetch_hub(plan, str(tmp_path)) == []
    assert len(hub.asked) + len(hub.storage.asked) == asked, "what is there is not asked for"
    assert next(load_corpus("wavcaps").clips(tmp_path / "raw/wavcaps", "soundbible")).captions == ("Rain falls.",)
    assert not parts(tmp_path)


def test_the_commit_is_pinned_and_another_is_refused(hub: Hub, tmp_path: Path) -> None:
    fetch_hub(plan_hub("wavcaps", SPLIT, str(tmp_path)), str(tmp_path))
    assert plan_hub("wavcaps", ("bbc",), str(tmp_path)).commit == COMMITS[0]
    hub.commit = COMMITS[1]
    with pytest.raises(UserError, match="commit 111111111111"):
        plan_hub("wavcaps", ("bbc",), str(tmp_path), revision="main")
    with pytest.raises(UserError, match="revision"):
        plan_hub("wavcaps", ("bbc",), str(tmp_path))


def test_splits_planned_one_after_the_other_are_all_remembered(hub: Hub, tmp_path: Path) -> None:
    fetch_hub(plan_hub("wavcaps", SPLIT, str(tmp_path)), str(tmp_path))
    fetch_hub(plan_hub("wavcaps", ("bbc",), str(tmp_path)), str(tmp_path))
    assert hub_status("wavcaps", ("bbc", *SPLIT), str(tmp_path)) == (6, 6, 0)
    (tmp_path / "raw/wavcaps/Zip_files/BBC_Sound_Effects/BBC_Sound_Effects.z01").unlink()
    assert hub_status("wavcaps", ("bbc",), str(tmp_path)) == (3, 4, len(b"part of a zip"))
    assert hub_status("wavcaps", ("freesound",), str(tmp_path)) == (0, 0, 0)


@pytest.mark.parametrize("fault", ["flip", "html"])
def test_no_file_with_another_digest_gets_its_name(fault: str, hub: Hub, tmp_path: Path) -> None:
    plan = plan_hub("wavcaps", SPLIT, str(tmp_path))
    hub.fault = hub.storage.fault = fault
    with pytest.raises(Failed):
        fetch_hub(plan, str(tmp_path))
    assert raw(tmp_path) == {}
    hub.fault = hub.storage.fault = ""
    fetch_hub(plan, str(tmp_path))
    assert set(raw(tmp_path)) == NEEDED


def test_a_file_of_the_right_length_and_wrong_bytes_is_refused_by_its_digest(hub: Hub, tmp_path: Path) -> None:
    plan = plan_hub("wavcaps", SPLIT, str(tmp_path))
    hub.storage.content = dict(hub.content) | {"Zip_files/SoundBible/SoundBible.zip": os.urandom(300_000)}
    with pytest.raises(Failed, match="digest"):
        fetch_hub(plan, str(tmp_path))
    assert "Zip_files/SoundBible/SoundBible.zip" not in raw(tmp_path)
    assert not parts(tmp_path), "wrong bytes are not built upon"


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999, 1.0, 1.5])
def test_what_a_killed_run_left_is_gone_on_from(share: float, ranges: bool, hub: Hub, tmp_path: Path) -> None:
    name = "Zip_files/SoundBible/SoundBible.zip"
    data = hub.content[name]
    plan = plan_hub("wavcaps", SPLIT, str(tmp_path))
    left = tmp_path / "fetch/hub/wavcaps" / f"{hashlib.sha256(data).hexdigest()}.part"
    left.parent.mkdir(parents=True)
    left.write_bytes((data * 2)[: int(len(data) * share)])
    hub.storage.fault = "" if ranges else "no ranges"
    fetch_hub(plan, str(tmp_path))
    assert raw(tmp_path)[name] == hashlib.sha256(data).hexdigest()
    again = len(data) if share > 1 or (not ranges and share < 1) else len(data) - int(len(data) * share)
    assert hub.storage.sent == again


def test_a_broken_connection_and_a_server_that_stumbles_are_waited_for(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for fault in ("503", "429"):
        hub.fault = fault
        plan = plan_hub("wavcaps", SPLIT, str(tmp_path))
    # The library writes 10 MB at a time, and what is not written comes again.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 2**15)
    hub.storage.fault = "break"
    fetch_hub(plan, str(tmp_path))
    assert set(raw(tmp_path)) == NEEDED
    assert 300_000 <= hub.storage.sent <= 300_000 + 2**15, "the second half was fetched, not the whole again"
    assert "sig=" not in "".join(capfd.readouterr())


def test_what_is_wrong_is_said_with_its_remedy(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(kind: type[Exception] = UserError) -> str:
        with pytest.raises(kind) as error:
            plan_hub("wavcaps", SPLIT, str(tmp_path))
        text = str(error.value)
        assert "\n" not in text and CANARY not in text and "secret" not in text
        return text

    hub.gated = "auto"
    assert "huggingface.co/datasets/cvssp/WavCaps" in told() and "HF_TOKEN is not set" in told()
    hub.gated = "not accepted"
    monkeypatch.setenv("HF_TOKEN", CANARY)
    assert "accept its terms" in told() and "the token in HF_TOKEN" in told()
    hub.gated = None
    plan_hub("wavcaps", SPLIT, str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert "refuses the token" in told() or "token valid" in told()
    monkeypatch.setenv("HF_TOKEN", "hf_secret\nX: y")
    assert "HF_TOKEN holds a character" in told()
    monkeypatch.delenv("HF_TOKEN")
    hub.name = "cvssp/Other"
    assert "no dataset cvssp/WavCaps" in told()
    hub.name = "cvssp/WavCaps"
    hub.content.pop("json_files/blacklist/blacklist_exclude_test_ac.json")
    assert "json_files/blacklist/*.json" in told()
    monkeypatch.setenv("HF_ENDPOINT", "http://user:secret@127.0.0.1:9")
    assert "cannot be reached" in told(Failed)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in told()
    with pytest.raises(UserError, match="not fetched from the Hub"):
        plan_hub("librispeech", ("dev-clean",), str(tmp_path))


@pytest.mark.parametrize(
    "name", ["../x.zip", "/etc/x.zip", "a/../../x.zip", "a\\x.zip", "a//x.zip", "a\n.zip", "./x.zip"]
)
def test_a_name_that_leads_out_of_the_folder_is_refused(name: str, hub: Hub, tmp_path: Path) -> None:
    hub.content[f"Zip_files/SoundBible/{name}"] = b"x"
    with pytest.raises(UserError, match="no file of a corpus"):
        plan_hub("wavcaps", SPLIT, str(tmp_path))


def test_the_token_goes_to_the_hub_alone(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    hub.gated = "auto"
    fetch_hub(plan_hub("wavcaps", SPLIT, str(tmp_path)), str(tmp_path))
    assert {token for *_, token in hub.asked} == {f"Bearer {CANARY}"}
    assert {token for *_, token in hub.storage.asked} == {None}
    for path in tmp_path.rglob("*"):
        assert CANARY not in str(path)
        assert not path.is_file() or CANARY.encode() not in path.read_bytes()


def test_the_token_of_a_login_is_not_used(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text(CANARY)
    program = (
        "import sys; from pipelines.fetching.hub import *; plan = plan_hub('wavcaps', ('soundbible',), sys.argv[1]);"
        "print(len(fetch_hub(plan, sys.argv[1])))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": hub.url}
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "root")], env=environment, capture_output=True, text=True
    )
    assert run.stdout == "3\n", run.stderr
    assert "it/s" not in run.stderr, "no bars"
    assert {token for *_, token in hub.asked} == {None}


def test_every_corpus_of_the_hub_has_patterns_for_known_splits() -> None:
    for corpus, repo in HUB_CORPORA.items():
        assert set(repo.patterns) <= set(load_corpus(corpus).splits)
        assert all(repo.patterns.values())
    assert "data/audio/xs_files/*.tar.gz" in HUB_CORPORA["gigaspeech"].patterns["m"]
    assert "data/audio/m_files_additional/*.tar.gz" in HUB_CORPORA["gigaspeech"].patterns["m"]
    assert not any("/l_files" in pattern for pattern in HUB_CORPORA["gigaspeech"].patterns["m"])


def test_a_plan_survives_its_journey_to_a_worker() -> None:
    plan = HubPlan(corpus="wavcaps", repo="cvssp/WavCaps", commit=COMMITS[0], files=())
    assert msgspec.json.decode(msgspec.json.encode(plan), type=HubPlan) == plan
