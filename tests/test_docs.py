"""The documents: README's commands run, its tables are the code's, and NOTICE covers every bundled file."""

from __future__ import annotations

import fnmatch
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import TWO
from manifests.catalogue import with_tables

TOP = Path(__file__).parents[1]
README = (TOP / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of README.md in one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    """Every `salmonn ...` line of README.md in order, without its comment.

    Two need what a test has not: the internet, and a running head (tests/test_fetch.py and test_submit.py run those).
    """
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    elsewhere = ("salmonn fetch ", "salmonn submit ")
    return [shlex.split(line) for line in lines if line.startswith("salmonn ") and not line.startswith(elsewhere)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, corpora: Path) -> Path:
    """A folder in which README's reader has unpacked LibriSpeech and written run.toml."""
    place = tmp_path_factory.mktemp("reader")
    (place / "data" / "raw").mkdir(parents=True)
    (place / "data" / "raw" / "librispeech").symlink_to(corpora / "librispeech")
    (run,) = blocks("toml")
    assert "steps = 200" in run
    (place / "run.toml").write_text(run.replace("steps = 200", "steps = 3"))
    speech = corpora / "librispeech" / "LibriSpeech" / "dev-clean" / "1272" / "128104" / "1272-128104-0000.flac"
    shutil.copy(speech, place / "speech.flac")
    return place


@pytest.mark.slow
def test_every_command_of_the_readme_works_in_its_order(workplace: Path, cluster: str) -> None:
    printed = {}
    for command in commands():
        # The reader's laptop starts a Ray of its own, the cluster's is found by `auto`; here one serves both.
        if "auto" in command:
            command[command.index("auto")] = cluster
        elif command[1] in ("scan", "build", "verify"):
            command += ["--address", cluster] if "--dry-run" not in command else []
        done = run(*command, cwd=workplace)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr
        printed[command[1]] = done.stdout
    # Its last build comes after annotations were made: the dataset is renewed with them.
    assert "librispeech:train-clean-100: its files changed" in printed["build"]
    assert "1 of 2 shards are still right" in printed["build"]
    assert "40 samples" in printed["verify"]
    assert (workplace / "audit" / "audit.html").stat().st_size > 10_000
    assert "speech.flac" in printed["generate"]


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would, from the project's own environment."""
    program = Path(shutil.which("salmonn", path=str(TOP / ".venv" / "bin")) or shutil.which("salmonn") or "")
    return subprocess.run([str(program), *command[1:]], cwd=cwd, capture_output=True, text=True, timeout=200)


def test_the_readme_names_every_command_of_make() -> None:
    targets = re.findall(r"^([a-z-]+):.*##", (TOP / "Makefile").read_text(), re.MULTILINE)
    assert {"help", "demo", "test", "test-all", "check"} <= set(targets)
    for line in blocks("sh")[0].splitlines():
        assert line.split()[1] in targets


def test_the_tables_of_the_readme_are_those_of_the_code() -> None:
    assert with_tables(README) == README, "make format writes them anew"


def test_the_python_of_the_readme_runs(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dataset").symlink_to(built)
    monkeypatch.chdir(tmp_path)
    for block in blocks("python"):
        names: dict[str, object] = {}
        exec(compile(block.replace("librispeech-100", str(TWO)), "README.md", "exec"), names)  # noqa: S102
        if "facts" in names:
            assert names["facts"]["corpus"] == "librispeech"
        if "rows" in names:
            assert next(iter(names["rows"]))["flac"][:4] == b"fLaC"
        if "state" in names:
            assert names["state"]["step"] == 1


def test_notice_covers_every_bundled_file_and_names_no_other() -> None:
    notice = (TOP / "NOTICE.md").read_text()
    patterns = re.findall(r"^\| `([^`]+)`", notice, re.MULTILINE)
    places = ("tests/corpora", "tests/published", "tests/golden", "manifests/lexicons", "shards/audit/lists")
    bundled = [str(p.relative_to(TOP)) for place in places for p in (TOP / place).rglob("*") if p.is_file()]
    assert bundled
    for path in bundled:
        assert any(fnmatch.fnmatch(path, pattern) for pattern in patterns), path
    for pattern in patterns:
        assert fnmatch.filter(bundled, pattern), pattern


def test_bundled_data_stays_small() -> None:
    places = ("tests", "manifests/lexicons", "shards/audit/lists")
    found = [path for place in places for path in (TOP / place).rglob("*") if path.is_file()]
    # What Python and hypothesis leave behind is not bundled, and our own code is no data.
    data = [path for path in found if not {"__pycache__", ".hypothesis"} & set(path.parts) and path.suffix != ".py"]
    assert 1e6 < sum(path.stat().st_size for path in data) < 25e6


def test_documents_are_plain_ascii_and_name_no_place_of_ours() -> None:
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "NOTICE.md"):
        text = (TOP / name).read_text()
        assert text.isascii(), name
        assert "../shared" not in text and "/work/" not in text
