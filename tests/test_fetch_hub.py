"""The commands fetch, status and scan as a user runs them: corpora of the Hub, own copies, secrets that stay secret."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import wave
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import CLUSTER
from fault_server import FaultServer
from manifests import UserError, load_corpus
from manifests.console import console
from pipelines.executor import Executor
from pipelines.fetching import commands as fetch_commands
from pipelines.fetching import hub_client
from pipelines.fetching.hub_tasks import archives_of, fetch_from_hub, plan_of
from pipelines.fetching.status import status_of
from salmonn.cli import app, explain
from test_hub import CANARY, Hub, small_wavcaps

TABLE = "sid,speaker,text_tn,begin_time,end_time,title,url,path,category,original_full_path\n"
CHUNKS = [["POD0000000025_S0000103", "POD0000000025_S0000104"], ["YOU0000000001_S0000001"]]
SECRETS = {
    "HF_TOKEN": CANARY,
    "AWS_SECRET_ACCESS_KEY": f"aws-{CANARY}",
    "http_proxy": f"http://me:{CANARY}@127.0.0.1:9",
    "https_proxy": f"http://me:{CANARY}@127.0.0.1:9",
    "no_proxy": "127.0.0.1,localhost",
}


def sound(seconds: float, pitch: float) -> bytes:
    sink = io.BytesIO()
    with wave.open(sink, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((np.sin(np.arange(round(seconds * 16_000)) * pitch) * 9000).astype("<i2").tobytes())
    return sink.getvalue()


def gigaspeech() -> dict[str, bytes]:
    """The smallest subset as the Hub has it: two chunks of three segments."""
    content = {"README.md": b"a card", "data/xs_n_archives.txt": b"2\n"}
    for number, sids in enumerate(CHUNKS):
        name, sink = f"xs_chunks_{number:04}", io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w:gz") as archive:
            for place, sid in enumerate(sids):
                data = sound(1.5, 0.1 + place / 10 + number)
                member = tarfile.TarInfo(f"{name}/{sid}.wav")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        rows = "".join(f"{sid},N/A,HELLO <COMMA> {sid},1.0,2.5,t,u,p,c,o\n" for sid in sids)
        content[f"data/metadata/xs_metadata/{name}_metadata.csv"] = (TABLE + rows).encode()
        content[f"data/audio/xs_files/{name}.tar.gz"] = sink.getvalue()
    return content


class Site:
    """A loopback Hub, a cluster whose workers know it, and the command; what it prints and starts is watched."""

    def __init__(self, root: Path, address: str, environment: dict[str, str]) -> None:
        self.root, self.address, self.environment = root, address, environment
        self.console = console
        self.said: list[str] = []
        self.seen: set[bytes] = set()
        self.code = 0

    def __call__(self, *arguments: object, **more: str) -> str:
        """Run ``salmonn`` and return what it printed; its exit code is in `code`.

        A process of its own takes a second to start, so what needs none of its environment runs in this one.
        """
        if arguments[0] == "status" or "iemocap" in arguments:
            return self.here(*arguments)
        line = [sys.executable, "-m", "salmonn.cli", *map(str, arguments)]
        env = self.environment | more
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(line, env=env, text=True, cwd=self.root, **pipes) as process:
            reader = threading.Thread(target=lambda: self.said.append(process.stdout.read()))
            reader.start()
            while process.poll() is None:
                self.look(process.pid)
                time.sleep(0.1)
            reader.join()
        self.code = process.returncode
        return self.said[-1]

    def here(self, *arguments: object) -> str:
        """Run ``salmonn`` in this process."""
        out = io.StringIO()
        self.console.file = out
        result = CliRunner().invoke(app, list(map(str, arguments)))
        code, sentence = explain(result.exception) if isinstance(result.exception, Exception) else (0, "")
        self.code, told = code, f"{out.getvalue()}{sentence}"
        self.said.append(told)
        return told

    def look(self, own: int) -> None:
        """Note the command lines of all processes but the one that the user typed, which a fork of it has too."""
        with contextlib.suppress(OSError):
            typed = {Path(f"/proc/{one}/cmdline").read_bytes() for one in (own, os.getpid())}
            for place in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.seen |= {place.read_bytes()} - typed

    def kept(self, *folders: Path) -> list[Path]:
        """Return the files below folders that hold a secret, in their names or their bytes."""
        found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        return [path for path in found if CANARY in str(path) or CANARY.encode() in path.read_bytes()]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    server = Hub("speechcolab/gigaspeech", {})
    server.storage = Hub("", {})
    yield server
    server.shutdown()
    server.storage.shutdown()


@pytest.fixture(scope="module")
def joined(hub: Hub) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a cluster whose workers have the environment that is given too."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "http"))}
    environment = kept | SECRETS | {"HF_ENDPOINT": hub.url, "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"PYTHONPATH": str(Path(__file__).parent.parent)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", CLUSTER], text=True, env=environment, **pipes) as process:
        line = next(line for line in process.stdout if line.startswith("at "))
        yield line.split()[1], environment
        process.stdin.close()


@pytest.fixture
def salmonn(joined: tuple[str, dict[str, str]], hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(console, "_file", None)  # put back at the end
    (tmp_path / "work").mkdir()
    hub.gated, hub.fault = None, ""
    hub.asked.clear()
    return Site(tmp_path / "work", *joined)


def serve(hub: Hub, name: str, content: dict[str, bytes]) -> None:
    hub.name, hub.content = name, content
    hub.storage.content = content


def secret(site: Site, *folders: Path) -> None:
    """No secret was printed, kept, or given to a process on its command line."""
    assert CANARY not in "".join(site.said)
    assert not [line for line in site.seen if CANARY.encode() in line]
    assert site.kept(*folders) == []


@pytest.mark.slow
def test_gigaspeech_from_a_refusal_to_its_manifest(salmonn: Site, hub: Hub) -> None:
    serve(hub, "speechcolab/gigaspeech", gigaspeech())
    hub.gated, root = "not accepted", salmonn.root / "data"
    at = ("--root", root, "--address", salmonn.address)
    said = salmonn("fetch", "gigaspeech:xs", *at)
    assert salmonn.code == 2 and "accept its terms at https://huggingface.co/datasets/speechcolab/gigaspeech" in said
    assert "Traceback" not in said and not root.exists()
    said = salmonn("status", "gigaspeech:xs", "--root", root)
    assert salmonn.code == 0 and "nothing yet" in said and "set HF_TOKEN" in said
    assert f"next: salmonn fetch gigaspeech:xs --root {root}" in said
    hub.gated = "auto"
    said = salmonn("fetch", "gigaspeech:xs", *at)
    assert salmonn.code == 0, said
    assert "5 of 5 files of the Hub are there, 5 fetched and 2 unpacked now" in said
    assert f"next: salmonn scan gigaspeech:xs --root {root}" in said
    audio = root / "raw/gigaspeech/data/audio/xs_files"
    assert sorted(path.stem for path in audio.rglob("*.wav")) == sorted(sid for sids in CHUNKS for sid in sids)
    said = salmonn("status", "--root", root)
    assert re.search(r"gigaspeech:xs +5 of 5 +5 +2 of 2 .* to scan", said) and "missing" not in said
    assert "not begun: gigaspeech s, m, l, xl, dev, test" in said
    asked = len(hub.asked)
    assert "0 fetched and 0 unpacked now" in salmonn("fetch", "gigaspeech:xs", *at, HF_TOKEN="")
    assert len(hub.asked) == asked, "what is there is not asked for, and takes no token"
    said = salmonn("scan", "gigaspeech:xs", *at)
    assert salmonn.code == 0 and re.search(r"gigaspeech:xs +3 +9,389", said), said
    said = salmonn("status", "--root", root)
    assert "scanned <0.1%" in said and "next: salmonn build RECIPE" in said
    assert {token for _, path, token in hub.asked if "/datasets/" in path} == {f"Bearer {CANARY}"}
    secret(salmonn, root)


@pytest.mark.slow
def test_musiccaps_is_a_table_of_the_hub_and_copies_of_ones_own(salmonn: Site, hub: Hub, corpora: Path) -> None:
    mini, root = corpora / "musiccaps", salmonn.root / "data"
    serve(hub, "google/MusicCaps", {"musiccaps-public.csv": (mini / "musiccaps-public.csv").read_bytes()})
    own = salmonn.root / "own copies"
    shutil.copytree(mini / "audio", own)
    at = ("--root", root, "--address", salmonn.address)
    said = salmonn("fetch", "musiccaps", *at, "--audio-dir", salmonn.root / "nowhere")
    assert salmonn.code == 2 and "--audio-dir: there is no folder" in said and not hub.asked
    said = salmonn("fetch", "musiccaps:eval", *at)
    assert salmonn.code == 0 and "--audio-dir DIR takes your own copies" in said, said
    said = salmonn("status", "--root", root)
    assert re.search(r"audio of (\d+) of \1 videos: \1 waiting", said) and "salmonn scan musiccaps" in said, said
    said = salmonn("fetch", "musiccaps", *at, "--audio-dir", own)
    assert salmonn.code == 0, said
    there, wanted = map(int, re.search(r"audio of (\d+) of (\d+) videos is there", said).groups())
    kept = {path.name for path in (root / "raw/musiccaps/audio").iterdir()}
    assert there == len(kept) and 0 < there <= wanted
    assert there == wanted or "absent: not among one's own copies" in said
    assert all((root / "raw/musiccaps/audio" / name).read_bytes() for name in kept)
    said = salmonn("scan", "musiccaps", *at)
    assert salmonn.code == 0, said
    states = re.findall(r"musiccaps:\w+ +(\d+) +[\d,]+ +[\d.]+% +(\d+)", said)
    assert sum(int(clips) - int(missing) for clips, missing in states) == there
    said = salmonn("status", "musiccaps", "--root", root)
    assert "scanned" in said and "next: salmonn build" in said
    secret(salmonn, root)


@pytest.mark.slow
def test_iemocap_is_adopted(salmonn: Site, corpora: Path) -> None:
    root, copy = salmonn.root / "data", salmonn.root / "a copy"
    shutil.copytree(corpora / "iemocap", copy)
    said = salmonn("fetch", "iemocap", "--root", root)
    assert salmonn.code == 2 and "sign the release form" in said and "a person takes the steps above" in said
    said = salmonn("status", "iemocap", "--root", root)
    assert salmonn.code == 0 and "a person gets it; salmonn fetch iemocap says how" in said
    said = salmonn("fetch", "iemocap", "--from", copy, "--root", root, "--dry-run")
    assert salmonn.code == 0 and "2 of 1,085 published clips have audio" in said and not root.exists()
    said = salmonn("fetch", "iemocap", "--from", corpora / "wikiqa", "--root", root)
    assert salmonn.code == 2 and "is not iemocap as published" in said
    said = salmonn("fetch", "iemocap", "--from", copy, "--root", root)
    assert salmonn.code == 0 and f"next: salmonn scan iemocap --root {root}" in said
    said = salmonn("status", "--root", root)
    assert len(re.findall(r"iemocap:session\d .* to scan", said)) == 5 and "next: salmonn scan iemocap " in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["wikiqa", "--copy"], "--copy goes with --from"),
        (["wikiqa", "iemocap", "--from", "x"], "--from adopts one corpus, not 2: wikiqa, iemocap"),
        (["musiccaps", "--cookies", "x"], "--cookies goes with --videos"),
        (["musiccaps", "--videos", "--audio-dir", "."], "one of them at a time"),
        (["wikiqa", "--videos"], "audiocaps, musiccaps, voxceleb1"),
        (["gigaspeach"], "did you mean 'gigaspeech'"),
        (["gigaspeech:xxs"], "gigaspeech has no split 'xxs'"),
    ],
)
def test_options_that_do_not_go_together_are_told(tmp_path: Path, options: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["fetch", *options, "--root", str(tmp_path / "data")])
    assert isinstance(result.exception, UserError) and said in str(result.exception), result
    assert not (tmp_path / "data").exists()


# Beneath the command.


@pytest.fixture
def wavcaps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    content = small_wavcaps()
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("SoundBible_flac/9001.flac", os.urandom(1000))
    content["Zip_files/SoundBible/SoundBible.zip"] = sink.getvalue()
    server = Hub("cvssp/WavCaps", content)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_client, "WAITS", (0.01,))
    yield server
    server.shutdown()


class Here(Executor):
    """Runs in this process."""

    def run(self, function, items):
        for item in items:
            yield item, function(item)


def fetch(root: Path, **options: bool) -> tuple[int, int, dict[str, str]]:
    made = fetch_from_hub("wavcaps", ("soundbible",), str(root), executor=Here(), **options)
    return made.fetched, made.unpacked, made.failed


ZIP = "raw/wavcaps/Zip_files/SoundBible/SoundBible.zip"


def test_archives_go_when_told_and_are_not_fetched_again(wavcaps: Hub, tmp_path: Path) -> None:
    assert fetch(tmp_path, unpack=False) == (3, 0, {})
    assert (tmp_path / ZIP).exists() and archives_of(plan_of("wavcaps", ("soundbible",), str(tmp_path)), str(tmp_path))
    assert fetch(tmp_path, remove=True) == (0, 1, {})
    assert not (tmp_path / ZIP).exists() and list(tmp_path.rglob("9001.flac"))
    asked = len(wavcaps.asked)
    assert fetch(tmp_path, remove=True) == (0, 0, {}) and len(wavcaps.asked) == asked
    state = status_of(load_corpus("wavcaps"), "soundbible", str(tmp_path))
    assert (state.fetched, state.files, state.unpacked, state.archives, state.why) == (3, 3, 1, 1, "")


def test_verify_hashes_again_and_mends(wavcaps: Hub, tmp_path: Path) -> None:
    fetch(tmp_path)
    right = (tmp_path / ZIP).read_bytes()
    (tmp_path / ZIP).write_bytes(bytes([right[0] ^ 1]) + right[1:])
    assert fetch(tmp_path) == (0, 0, {}), "the size alone is looked at"
    assert fetch(tmp_path, verify=True) == (1, 1, {})
    assert (tmp_path / ZIP).read_bytes() == right
    assert fetch(tmp_path, verify=True) == (0, 0, {})


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("http://169.254.169.254/latest/meta-data/", "metadata address"),
        ("http://[fd00:ec2::254]/latest/", "metadata address"),
        ("http://[::ffff:169.254.169.254]/", "metadata address"),
        ("http://0/latest", "no address of one machine"),
    ],
)
def test_the_hub_cannot_send_us_anywhere(wavcaps: Hub, tmp_path: Path, place: str, said: str) -> None:
    class Elsewhere:
        url = place

    wavcaps.storage = Elsewhere()
    _, _, failed = fetch(tmp_path)
    assert all(said in why and "leads elsewhere" in why for why in failed.values()) and len(failed) == 1
    assert not (tmp_path / ZIP).exists()


def test_a_dry_run_is_refused_as_the_fetch_would_be(
    wavcaps: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wavcaps.gated = "not accepted"
    with pytest.raises(UserError, match="accept its terms"):
        fetch_commands.fetch(["wavcaps:soundbible"], str(tmp_path / "data"), dry_run=True)
    wavcaps.gated = None
    fetch_commands.fetch(["wavcaps:soundbible"], str(tmp_path / "data"), dry_run=True)
    said = capsys.readouterr().out
    assert "cvssp/WavCaps @ 111111111111" in said and "nothing was written" in said
    assert not (tmp_path / "data").exists()


RECIPE = """
title = "Three segments"
[[instruct]]
task = "asr"
corpus = "gigaspeech"
splits = ["xs"]
weight = 1.0
"""


@pytest.mark.slow
def test_a_secret_appears_nowhere(salmonn: Site, hub: Hub, corpora: Path) -> None:
    """In variables, an address, a query, a proxy and a path: printed nowhere, kept nowhere, on no command line."""
    root, out, work = salmonn.root / "data", salmonn.root / "dataset", salmonn.root
    at = ("--root", root, "--address", salmonn.address)
    serve(hub, "speechcolab/gigaspeech", gigaspeech())
    hub.gated = "auto"
    salmonn("fetch", "gigaspeech:xs", *at)
    assert salmonn.code == 0, salmonn.said[-1]
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for path in sorted((corpora / "wikiqa").rglob("*")):
            archive.write(path, path.relative_to(corpora / "wikiqa"))
    published = load_corpus("wikiqa").facts.archives[0].url.split("/", 3)[3]
    with FaultServer({published: sink.getvalue()}) as server:
        for mode in ("error_503/1", "web_page/always", "good/0"):
            mirror = f"{server.url}/{mode}/k".replace("//", f"//me:{CANARY}@", 1) + f"?token={CANARY}"
            salmonn("fetch", "wikiqa", *at, "--mirror", mirror, "--allow-private", "--again", "--deadline", 5)
            salmonn("status", "--root", root)
        assert any(CANARY in path for path, _ in server.requests), "the server did get it"
    assert salmonn("status", "wikiqa", "--root", root).count("to scan") == 3
    serve(hub, "google/MusicCaps", {"musiccaps-public.csv": (corpora / "musiccaps/musiccaps-public.csv").read_bytes()})
    cookies = work / CANARY / "cookies.txt"
    cookies.parent.mkdir()
    cookies.write_text(f"# Netscape HTTP Cookie File\n.youtube.com\tTRUE\t/\tTRUE\t2147483647\tSID\t{CANARY}\n")
    salmonn("fetch", "musiccaps:eval", *at, "--videos", "--cookies", cookies)
    assert salmonn.code == 1 and "network" in salmonn.said[-1], salmonn.said[-1]
    salmonn("fetch", "musiccaps:eval", *at, "--videos", "--cookies", work / CANARY / "nowhere.txt")
    assert salmonn.code == 2 and "--cookies" in salmonn.said[-1]
    salmonn("status", "--root", root)
    (work / "recipe.toml").write_text(RECIPE)
    salmonn("scan", "gigaspeech:xs", "wikiqa", *at)
    assert salmonn.code == 0, salmonn.said[-1]
    salmonn("build", work / "recipe.toml", *at, "--out", out)
    assert salmonn.code == 0 and (out / "dataset.json").exists(), salmonn.said[-1]
    assert len(salmonn.seen) > 5, "processes were looked at"
    secret(salmonn, root, out)
