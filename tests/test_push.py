"""Pushing a dataset to the Hub, against a stand-in on loopback that keeps what it is sent and can be read back."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from conftest import World, digests
from hub_server import OWNER, TOKEN, Fault, HubServer, hub_server
from manifests import Failed, UserError, load_corpus
from pipelines.pushing import commands, upload, writer
from pipelines.pushing.commands import push
from pipelines.verify import verify_index
from shards import Dataset
from shards.finishing import PAPERS, publish

REPO = f"{OWNER}/small-world"
WORLD: World = {
    ("librispeech", "dev-clean"): [(1600, ("asr", "gender_recognition"))] * 6,
    ("librispeech", "test-clean"): [(800, ("asr",))] * 4,
    ("clotho", "evaluation"): [(3200, ("audio_caption",))] * 4,
    ("audiocaps", "test"): [(2400, ("audio_caption",))] * 2,
}
FREE = {("librispeech", "dev-clean"): WORLD["librispeech", "dev-clean"], ("covost2", "test"): [(900, ("asr",))] * 3}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    from huggingface_hub import constants

    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        # Read once, when the library is imported; make sets it for all tests.
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        # The stand-in has no Xet, whose protocol is no open one; to real Hubs the library speaks it if it is installed.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(writer, "WAITS", (0.01, 0.01, 0.01))
        yield server


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """What the command has printed so far."""
    console = Console(record=True, width=140, file=io.StringIO())
    monkeypatch.setattr(commands, "console", console)
    return lambda: console.export_text(clear=False)


@pytest.fixture
def free(make_dataset: Callable[..., Dataset]) -> Path:
    """A dataset that may be pushed."""
    dataset = make_dataset(FREE, shards=2)
    publish(dataset.url, dataset.manifest)
    return Path(dataset.url)


@pytest.fixture
def mixed(make_dataset: Callable[..., Dataset]) -> Path:
    """A dataset of corpora with the licences that they state: AudioCaps' forbids to pass it on."""
    dataset = make_dataset(WORLD, shards=2)
    sources = tuple(
        msgspec.structs.replace(source, license=load_corpus(source.corpus).facts.license)
        for source in dataset.manifest.sources
    )
    publish(dataset.url, msgspec.structs.replace(dataset.manifest, sources=sources))
    return Path(dataset.url)


def send(folder: Path, repo: str = REPO, **more: object) -> upload.Sent | None:
    asked = {"private": False, "revision": "", "only": (), "dry_run": False} | more
    return push(str(folder), repo, **asked)


def read_back(hub: HubServer, folder: Path, repo: str = REPO, branch: str = "main") -> Path:
    """Write what the Hub holds into a folder."""
    for name, content in hub.files(repo, branch).items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    (folder / ".gitattributes").unlink(missing_ok=True)
    return folder


def test_what_is_pushed_is_the_dataset_and_dataset_json_comes_last(
    hub: HubServer, free: Path, tmp_path: Path, printed: Callable[[], str]
) -> None:
    sent = send(free)
    local, back = digests(free), digests(read_back(hub, tmp_path))
    assert sent is not None and sent.files == len(local) and sent.kept == 0
    # croissant.json alone differs: on the Hub it names files by their addresses.
    assert {name for name in local if back.pop(name) != local[name]} == {"croissant.json"} and not back
    assert f'"contentUrl": "{hub.url}/datasets/{REPO}/resolve/main/index/' in (tmp_path / "croissant.json").read_text()
    assert verify_index(Dataset(tmp_path)) == [] and Dataset(tmp_path).digest == Dataset(free).digest
    done = hub.repos[REPO].commits
    assert [commit.added for commit in done[1:]] == [list(PAPERS), ["dataset.json"]]
    assert len(done) == sent.commits == 3 and not hub.repos[REPO].private
    # The token goes to the Hub, and not to its storage.
    assert {token for path, token in hub.tokens if not path.startswith("/store/")} == {f"Bearer {TOKEN}"}
    assert {token for path, token in hub.tokens if re.match("/store/[0-9a-f]", path)} == {None}
    assert "datasets reads it: 6 samples" in printed() and f"{hub.url}/datasets/{REPO}" in printed()
    assert TOKEN not in printed()


def test_a_second_push_sends_nothing_and_a_mended_one_only_what_is_missing(
    hub: HubServer, free: Path, printed: Callable[[], str]
) -> None:
    send(free)
    puts, before = hub.puts, dict(hub.files(REPO))
    again = send(free)
    assert again is not None and (again.files, again.commits, again.kept) == (0, 0, len(before) - 1)
    assert hub.puts == puts and "is as it should be" in printed()
    # One file of it is lost on the Hub: readers are told at once, and it comes back from the Hub's own store.
    shard = next(name for name in before if name.endswith(".tar"))
    del hub.files(REPO)[shard]
    mended = send(free)
    assert mended is not None and mended.files == 2 and hub.puts == puts
    assert [(one.added, one.removed) for one in hub.repos[REPO].commits[-3:]] == [
        ([], ["dataset.json"]),
        ([shard], []),
        (["dataset.json"], []),
    ]
    assert hub.files(REPO) == before


@pytest.mark.slow
def test_a_killed_push_goes_on_where_it_was(hub: HubServer, free: Path, tmp_path: Path) -> None:
    """The process is killed while the third file goes; the next one sends the others, and nothing twice."""
    hub.silent_after = 3
    environment = os.environ | {"HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
    # That datasets reads it is another test's; to import it takes longer than all the rest.
    program = (
        "import sys; from pipelines.pushing import commands; commands.check_readable = lambda *_: 0; "
        "commands.push(*sys.argv[1:], private=False, revision='', only=(), dry_run=False)"
    )
    command = [sys.executable, "-c", program, str(free), REPO]
    with subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True) as process:
        deadline = time.monotonic() + 60
        while len(hub.said("PUT /store/")) < 4 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.communicate()
    stored = dict(hub.store)
    assert process.returncode == -9 and len(stored) == 3
    assert "dataset.json" not in hub.files(REPO)
    hub.silent_after, begun = None, len(hub.asked)
    hub.speak.set()
    sent = send(free)
    assert sent is not None and sent.commits == 3
    later = {path.removeprefix("/store/") for method, path in hub.asked[begun:] if method == "PUT"}
    assert later.isdisjoint(stored) and later | set(stored) == set(hub.store)
    assert verify_index(Dataset(read_back(hub, tmp_path / "back"))) == []


def test_commits_that_were_made_before_a_stop_are_kept(
    hub: HubServer, free: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "BATCH", 2)
    monkeypatch.setattr(writer, "WAITS", ())
    total = len([name for name in digests(free) if name.endswith((".tar", ".parquet"))])
    for commits in (2, 4):
        hub.faults = [Fault("POST .*/commit/", 503, after=2)]
        with pytest.raises(Failed, match="answers 503; run it again, it goes on from here"):
            send(free)
        assert len(hub.repos[REPO].commits) == commits and "dataset.json" not in hub.files(REPO)
    sent = send(free)
    assert sent is not None and sent.commits == total // 2 + 2 - 4 == 2
    # Two of the files are the same: the quarantines, which are empty.
    assert hub.puts == len(hub.store) == total - 1 == 7 and verify_index(Dataset(read_back(hub, tmp_path))) == []
    added = [name for commit in hub.repos[REPO].commits for name in commit.added]
    assert len(added) == len(set(added)) and added[-1] == "dataset.json"


def test_a_corpus_whose_licence_forbids_it_is_refused_by_name_and_the_others_go(
    hub: HubServer, mixed: Path, tmp_path: Path, printed: Callable[[], str]
) -> None:
    with pytest.raises(UserError) as refused:
        send(mixed)
    told = str(refused.value)
    assert "audiocaps (MIT captions, YouTube audio: its audio belongs to those who put it on YouTube" in told
    assert told.endswith("leave it out: --only clotho,librispeech") and "librispeech (" not in told
    with pytest.raises(UserError, match="nothing of this dataset may be pushed"):
        send(mixed, only=("audiocaps",))
    assert hub.asked == []
    sent = send(mixed, only=("librispeech", "clotho"))
    assert sent is not None
    part, whole = Dataset(read_back(hub, tmp_path)), Dataset(mixed)
    assert {source.corpus for source in part.manifest.sources} == {"librispeech", "clotho"}
    assert not [name for name in hub.files(REPO) if "audiocaps" in name]
    # Byte for byte those shards, an index and a digest of its own, and papers that tell of nothing else.
    assert verify_index(part) == [] and part.digest != whole.digest
    kept = [source for source in whole.manifest.sources if source.corpus != "audiocaps"]
    assert list(part.manifest.sources) == kept
    for name in PAPERS:
        assert "audiocaps" not in (tmp_path / name).read_text().lower(), name
    assert "license: other" in (tmp_path / "README.md").read_text()
    assert "not for commercial use" in printed()


def test_a_clip_with_terms_that_forbid_it_keeps_its_corpus_back(hub: HubServer, mixed: Path) -> None:
    """Clotho leaves it to its clips: one that only repeats what the corpus says has no licence of its own."""
    dataset = Dataset(mixed)
    stated = load_corpus("clotho").facts.license
    sources = []
    for source in dataset.manifest.sources:
        if source.corpus == "clotho":
            path = mixed / source.index.path
            table = dataset.table("clotho", source.split)
            licences = ["CC0-1.0", "CC-BY-NC-3.0", stated, "all rights reserved"]
            place = table.schema.get_field_index("license")
            rewrite(path, table.set_column(place, table.schema.field(place), [licences]))
            content = path.read_bytes()
            file = msgspec.structs.replace(source.index, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            source = msgspec.structs.replace(source, index=file)
        sources.append(source)
    publish(str(mixed), msgspec.structs.replace(dataset.manifest, sources=tuple(sources)))
    with pytest.raises(UserError, match=r"clotho \(2 of its 4 clips, .*unknown terms allow nothing") as refused:
        send(mixed, only=("clotho", "librispeech"))
    assert "leave it out: --only librispeech" in str(refused.value) and hub.asked == []


def rewrite(path: Path, table: object) -> None:
    from manifests.tables import write_table

    write_table(str(path), table)


def test_what_a_source_asks_beyond_its_licence_is_said(hub: HubServer, free: Path, printed: Callable[[], str]) -> None:
    assert send(free, dry_run=True) is None
    assert "Mozilla Data Collective" in printed() and "Nothing was sent" in printed()
    assert hub.asked == []


@pytest.mark.parametrize(
    ("token", "repo", "fault", "why"),
    [
        ("hf_WrongWrongWrong", REPO, None, r"refuses the token for me/small-world \(401\)"),
        (TOKEN, "others/small-world", None, r"does not let this token write to others/small-world \(403\)"),
        (TOKEN, REPO, Fault("POST .*/preupload/", 403, times=9), r"does not let this token write to .* \(403\)"),
        ("", REPO, None, "takes a token of your account that may write.*hf auth login"),
        ("hf_a b", REPO, None, "holds a character that no token has"),
    ],
)
def test_a_token_that_may_not_write_is_one_sentence(
    hub: HubServer,
    free: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    token: str,
    repo: str,
    fault: Fault | None,
    why: str,
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
    monkeypatch.setenv("HF_TOKEN", token)
    hub.faults = [fault] if fault else []
    with pytest.raises(UserError, match=why) as refused:
        send(free, repo)
    assert "hf_" not in str(refused.value) and "\n" not in str(refused.value)
    assert not any(hub.repos[name].commits for name in hub.repos)


def test_the_command_prints_one_sentence_and_no_secret(
    hub: HubServer, free: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the login that huggingface_hub saved, in place of HF_TOKEN."""
    from huggingface_hub import constants

    from salmonn import cli

    (tmp_path / "token").write_text("hf_SavedSavedSaved\n")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(sys, "argv", ["salmonn", "push", str(free), REPO, "--only", "librispeech, covost2"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    assert left.value.code == 2 and err.startswith("salmonn: ") and err.count("\n") == 1
    assert "(401)" in err and "Saved" not in out + err
    assert ("/api/repos/create", "Bearer hf_SavedSavedSaved") in hub.tokens


def test_a_hub_that_asks_for_patience_gets_it(
    hub: HubServer, free: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is asked, it first says to wait for seven seconds, and then that it is busy."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    limit = {"RateLimit": '"api";r=0;t=7', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
    asked = ("repos/create", "/preupload/", "objects/batch", "PUT /store", "/commit/", "/tree/")
    hub.faults = [Fault(where, 429, headers=limit) for where in asked] + [Fault(where, 503) for where in asked]
    send(free)
    assert not any(fault.times for fault in hub.faults)
    assert len([one for one in waited if one >= 7]) == len(asked) <= len([one for one in waited if 0 < one < 7])
    assert verify_index(Dataset(read_back(hub, tmp_path))) == []


def test_a_hub_that_never_answers_stops_the_push_with_a_sentence(hub: HubServer, free: Path) -> None:
    hub.faults = [Fault("repos/create", 500, times=99)]
    with pytest.raises(Failed, match=r"http://127.0.0.1:\d+ answers 500; run it again, it goes on from here"):
        send(free)
    hub.faults = [Fault("POST .*/commit/", 400, times=1)]
    with pytest.raises(UserError, match="does not take me/small-world as it is \\(400\\)"):
        send(free)


def test_a_dataset_that_changed_takes_the_place_of_the_old_one(
    hub: HubServer, free: Path, make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    send(free)
    old = set(hub.files(REPO))
    changed = make_dataset(
        {("librispeech", "dev-clean"): [(1700, ("asr",))] * 5, ("clotho", "test"): [(800, ("asr",))]}
    )
    publish(changed.url, changed.manifest)
    sent = send(Path(changed.url))
    assert verify_index(Dataset(read_back(hub, tmp_path))) == []
    assert Dataset(tmp_path).digest == changed.digest
    gone = old - set(hub.files(REPO))
    assert sent is not None and sent.removed == len(gone) > 0 and all(".tar" in n or ".parquet" in n for n in gone)
    # From the first commit of the second push to its last there was no dataset.json.
    second = hub.repos[REPO].commits[3:]
    assert second[0].removed == ["dataset.json"] and second[-1].added == ["dataset.json"]
    assert not any("dataset.json" in commit.added + commit.removed for commit in second[1:-1])


def test_a_branch_and_a_private_repository(hub: HubServer, free: Path, tmp_path: Path) -> None:
    send(free, private=True, revision="v2")
    assert hub.repos[REPO].private and list(hub.files(REPO)) == [".gitattributes"]
    assert verify_index(Dataset(read_back(hub, tmp_path, branch="v2"))) == []
    assert f"/datasets/{REPO}/resolve/v2/shards/" in (tmp_path / "croissant.json").read_text()
    assert send(free, revision="v2").commits == 0


def test_a_repository_of_something_else_is_left_alone(hub: HubServer, free: Path) -> None:
    send(free, f"{OWNER}/mine")
    hub.repos[REPO] = hub.repos.pop(f"{OWNER}/mine")
    hub.repos[REPO].branches["main"] = {"README.md": b"my models", "model.safetensors": b"x"}
    before = len(hub.repos[REPO].commits)
    with pytest.raises(UserError, match=r"holds something else already \(model.safetensors\)"):
        send(free)
    assert len(hub.repos[REPO].commits) == before


def test_what_is_not_whole_is_not_pushed(hub: HubServer, free: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = free / Dataset(free).manifest.sources[-1].shards[-1].path
    content = shard.read_bytes()
    shard.write_bytes(content[:-512])
    with pytest.raises(Failed, match=f"not whole: .*{shard.name}: {len(content) - 512} bytes"):
        send(free)
    shard.unlink()
    with pytest.raises(Failed, match=f"{shard.name}: missing"):
        send(free)
    assert hub.asked == []
    # Of its size, and another: found when it was hashed to be sent, and so it is never committed.
    shard.write_bytes(content[:-600] + bytes([content[-600] ^ 1]) + content[-599:])
    monkeypatch.setattr(upload, "BATCH", 1)
    with pytest.raises(Failed, match=f"{shard.name}: its bytes are not those that dataset.json names"):
        send(free)
    assert not [name for name in hub.files(REPO) if name.endswith((shard.name, "dataset.json"))]


def test_files_outside_a_dataset_are_not_sent_along(hub: HubServer, free: Path) -> None:
    manifest = Dataset(free).manifest
    (free / "secret").write_bytes(b"of mine")
    for path in ("secret", "shards/../secret", "../secret"):
        file = msgspec.structs.replace(manifest.sources[0].shards[0], path=path, bytes=7)
        sources = (msgspec.structs.replace(manifest.sources[0], shards=(file,)), *manifest.sources[1:])
        (free / "dataset.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, sources=sources)))
        with pytest.raises(UserError, match=rf"dataset.json names '{path}', which is not in a folder of datasets"):
            send(free)
    assert hub.asked == []


def test_a_server_that_is_no_hub_is_one_sentence(hub: HubServer, free: Path) -> None:
    hub.faults = [Fault("repos/create", 200)]
    with pytest.raises(Failed, match="does not answer as the Hub does; is HF_ENDPOINT right"):
        send(free)


def test_what_datasets_cannot_read_is_not_pushed(hub: HubServer, free: Path) -> None:
    readme = free / "README.md"
    text = readme.read_text()
    readme.write_text(text.replace("dev-clean-000000.tar", "dev-clean-000009.tar"))
    with pytest.raises(Failed, match="datasets cannot read librispeech: "):
        send(free)
    first, second = "dev-clean-000000.tar", "dev-clean-000001.tar"
    readme.write_text(text.replace(first, "x").replace(second, first).replace('x"', second + '"'))
    with pytest.raises(Failed, match=r"datasets reads \[.*\] of librispeech:dev-clean, where the index begins with"):
        send(free)
    assert hub.asked == []
    # The Hub itself checks the head.
    readme.write_text(text.replace("license: cc0-1.0\n", ""))
    with pytest.raises(
        UserError, match=r"does not take me/small-world as it is: Invalid metadata in README.md. - no lic"
    ):
        send(free)
    # What a person wrote into the card goes along.
    readme.write_text(text + "\nThanks to all.\n")
    send(free)
    assert hub.files(REPO)["README.md"].endswith(b"Thanks to all.\n")


def test_mistakes_of_the_command_line(hub: HubServer, free: Path, make_index: Callable[..., Dataset]) -> None:
    for repo in ("small-world", "me/", "/x", "me/a b", "me/a/b", "me/x--y", "../x", "me/" + "x" * 97):
        with pytest.raises(UserError, match="it is ACCOUNT/NAME, as in my-account/"):
            send(free, repo)
    with pytest.raises(UserError, match=r"no corpus 'librispech'; did you mean 'librispeech'\?"):
        send(free, only=("librispech",))
    with pytest.raises(UserError, match=r"is on an object store, .* copy it to one"):
        send(make_index(FREE).url)
    with pytest.raises(UserError, match="there is no dataset"):
        send(free / "shards")
    assert hub.asked == []


def test_offline_or_without_the_library_it_says_so(hub: HubServer, free: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "datasets", None)
        with pytest.raises(UserError, match=r"pip install 'salmonn-data-engine\[push\]'"):
            send(free)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set, so nothing can be pushed"):
        send(free)
    assert hub.asked == []
