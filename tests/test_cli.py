"""The command line: a user's mistake is one sentence with value and remedy, exit code 2, and nothing changes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import TWO, digests, salmonn_here


def salmonn(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a fresh process."""
    command = [sys.executable, "-m", "salmonn.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=cwd)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """A sentence on stderr that holds all `words`, exit code 2, no traceback."""
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("salmonn: ") and len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


MISTAKES = [
    (["scan", "librispech"], ["librispech", "did you mean 'librispeech'?"]),
    (["scan", "librispeech:dev-claen"], ["no split 'dev-claen'", "did you mean 'dev-clean'?"]),
    (["recipe", "minni"], ["no recipe 'minni'", "did you mean 'mini'?"]),
    (["build", "minni", "--out", "out"], ["did you mean 'mini'?"]),
    (["build", "mini", "--out", "out", "--root", "nowhere"], ["no folder 'nowhere'", "raw/<corpus>"]),
    (["build", "mini", "--out", "out", "--root", "empty"], ["audiocaps", "no folder 'empty/raw/audiocaps'"]),
    (["build", "mini", "--out", "/proc/here", "--root", "empty"], ["cannot write to '/proc/here'"]),
    (["build", "mini", "--out", "a.file/out", "--root", "empty"], ["a.file", "is not a folder"]),
    (["build", "typo.toml", "--out", "out", "--root", "empty"], ["typo.toml", "'wieght'", "did you mean 'weight'?"]),
    (["build", "task.toml", "--out", "out", "--root", "empty"], ["no task 'arr'", "did you mean 'asr'?"]),
    (["build", "serve.toml", "--out", "out", "--root", "empty"], ["audiocaps does not serve the task 'asr'"]),
    (["scan", "librispeech", "--root", "empty", "--workers", "0"], ["no folder"]),
    (["verify", "empty"], ["no dataset in 'empty'", "salmonn build"]),
    (["verify", "empty", "--data-subset", "half"], ["'half'", "5%"]),
    (["peek", "pipe:touch marker"], ["no dataset"]),
    (["peek", "pipe://touch marker"], ["cannot use the address"]),
    (["stream", "empty", "--recipe", "mini"], ["no dataset"]),
    (["audit", "empty", "--recipe", "mini"], ["no dataset"]),
    (["train", "nothing.toml"], ["no settings file 'nothing.toml'"]),
    (["train", "run.toml"], ["unknown key 'stpes'", "did you mean 'steps'?"]),
    (["evaluate", "empty"], ["empty"]),
    (["generate", "empty", "a.file", "--prompt", "What is said?"], ["no run in 'empty'", "salmonn train"]),
    (["demo", "--out", "out", "--steps", "3"], ["--steps is 3"]),
]

ROW = '[[instruct]]\ntask = "{task}"\ncorpus = "{corpus}"\nsplits = ["{split}"]\n'


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with what the mistakes need."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.file").write_text("not audio")
    row = ROW.format(task="asr", corpus="librispeech", split="dev-clean")
    (tmp_path / "typo.toml").write_text(f'title = "x"\n{row}wieght = 1.0\n')
    (tmp_path / "task.toml").write_text(
        'title = "x"\n' + ROW.format(task="arr", corpus="librispeech", split="dev-clean")
    )
    (tmp_path / "serve.toml").write_text('title = "x"\n' + ROW.format(task="asr", corpus="audiocaps", split="train"))
    (tmp_path / "run.toml").write_text('run = "r"\ndataset = "d"\nrecipe = "mini"\nmodel = "tiny"\nstpes = 3\n')
    return tmp_path


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_changes_nothing(workplace: Path, arguments: list[str], words: list[str]) -> None:
    before = digests(workplace)
    refused(salmonn_here(*arguments, cwd=workplace), *words)
    assert digests(workplace) == before
    assert sorted(path.name for path in workplace.iterdir()) == sorted(
        ["empty", "a.file", "typo.toml", "task.toml", "serve.toml", "run.toml"]
    )


def test_a_process_of_its_own_ends_the_same_way(workplace: Path) -> None:
    for arguments, words in (MISTAKES[0], MISTAKES[-1]):
        refused(salmonn(*arguments, cwd=workplace), *words)
        assert salmonn(*arguments, cwd=workplace).stderr == salmonn_here(*arguments, cwd=workplace).stderr


def test_mistakes_on_a_real_dataset_are_told_too(built: Path, tmp_path: Path) -> None:
    before = digests(built)
    refused(salmonn_here("peek", built, "librispeech_1688-142285-0009"), "did you mean 'librispeech_1688-142285-000")
    refused(salmonn_here("stream", built, "--recipe", TWO, "--stage", "activate"), "no stage 'activate'", "instruct")
    refused(salmonn_here("audit", built, "--recipe", "minni"), "did you mean 'mini'?")
    refused(salmonn_here("stream", built, "--recipe", TWO, "--max-seconds", "3"), "max_seconds is 3")
    refused(salmonn_here("build", "librispeech-100", "--root", tmp_path, "--out", built), "made by the recipe 'two'")
    refused(
        salmonn_here("build", TWO, "--root", tmp_path, "--out", built, "--address", "ray://127.0.0.1:1"), "audiocaps"
    )
    assert digests(built) == before


def test_an_unknown_command_or_option_names_the_nearest() -> None:
    done = salmonn_here("biuld", "mini")
    assert done.returncode == 2 and "Did you mean 'build'?" in done.stderr
    done = salmonn_here("build", "mini", "--out", "x", "--rooot", "y")
    assert done.returncode == 2 and "--root" in done.stderr


def test_help_is_quick_and_imports_no_heavy_library() -> None:
    code = (
        "import sys; from salmonn.cli import app\ntry: app(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'pyarrow', 'duckdb', 'soundfile', 'transformers', 'numpy', 'fsspec'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    for command in ("build", "scan", "train", "audit", "peek", "stream", "verify", "evaluate", "generate", "demo"):
        assert command in done.stdout


def test_peek_writes_the_stored_flac(built: Path, root: Path, tmp_path: Path) -> None:
    place = tmp_path / "one.flac"
    done = salmonn("peek", built, "librispeech_60-121082-0000", "--audio", place)
    assert done.returncode == 0 and "gender_recognition" in done.stdout and "Male" in done.stdout
    source = root / "raw/librispeech/LibriSpeech/train-clean-100/60/121082/60-121082-0000.flac"
    assert place.read_bytes() == source.read_bytes()


def test_a_damaged_dataset_fails_verification_with_exit_code_1(built: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    shard = next((copy / "shards").rglob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-1])
    done = salmonn("verify", copy)
    assert done.returncode == 1 and shard.name in done.stdout and "1 things are wrong" in done.stderr


def test_output_into_a_log_has_no_terminal_codes(built: Path) -> None:
    done = salmonn("stream", built, "--recipe", TWO, "--steps", "5")
    assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr
    assert "padding" in done.stdout


def test_interrupting_a_build_says_what_to_do(root: Path, tmp_path: Path) -> None:
    import signal

    out = tmp_path / "out"
    command = [sys.executable, "-m", "salmonn.cli", "build", str(TWO), "--root", str(root), "--out", str(out)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    while process.poll() is None and not (out / "build" / "plan.json").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "run the same command again" in told and "Traceback" not in told
    assert not (out / "dataset.json").exists()
