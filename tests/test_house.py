"""The floor plan: who may import whom, which room knows which heavy thing, and what an import costs."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ("manifests", "shards", "pipelines", "salmonn")
FLOOR_BELOW = {
    "manifests": set(),
    "shards": {"manifests"},
    "pipelines": {"manifests", "shards"},
    "salmonn": {"manifests", "shards"},
}
ROOF = re.compile(r"salmonn/cli(_\w+)?\.py")
ONE_ROOM = {
    "ray": {"pipelines/executor.py", "salmonn/training/ray_train.py"},
    "gradio": {"salmonn/chat.py"},
    "fsspec": {"manifests/files.py"},
    "tarfile": {"shards/sample.py"},
    "soundfile": {"shards/audio.py", "shards/sound.py"},
    "soxr": {"shards/audio.py"},
    "av": {"shards/containers.py"},
    "miniaudio": {"shards/dr_flac.py"},
    "librosa": {"shards/audit/spectrogram.py"},
    "urllib3": {"pipelines/fetching/exchange.py", "pipelines/fetching/hosts.py"},
    "py7zr": {"pipelines/unpacking/sevenzip.py"},
}
MODULE_NAME = re.compile(rf"({'|'.join(HOUSE)})(\.\w+)*")


@functools.cache
def rooms() -> tuple[tuple[str, ast.Module], ...]:
    """Every file of the four packages, by its path, parsed."""
    paths = (path for package in HOUSE for path in sorted((ROOT / package).rglob("*.py")))
    return tuple((path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())) for path in paths)


@functools.cache
def imported(tree: ast.Module) -> set[str]:
    """Full names of all that a file imports, at its top or inside a function, or lazily by the name in a string."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that the plan can be read"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            found |= {node.value} if MODULE_NAME.fullmatch(node.value) else set()
    return found


def test_the_walk_sees_the_whole_house() -> None:
    seen = [path for path, _ in rooms()]
    assert {path.split("/")[0] for path in seen} == set(HOUSE)
    assert {"manifests/corpora/librispeech.py", "pipelines/fetching/fetch.py", "pipelines/unpacking/unpack.py"} <= set(
        seen
    )
    assert "fsspec" in imported(ast.parse((ROOT / "manifests/files.py").read_text()))


def test_arrows_run_down_only() -> None:
    wrong = []
    for path, tree in rooms():
        home = path.split("/")[0]
        allowed = FLOOR_BELOW[home] | {home} | ({"pipelines"} if ROOF.fullmatch(path) else set())
        wrong += [f"{path} -> {name}" for name in imported(tree) if name.split(".")[0] in set(HOUSE) - allowed]
    assert not wrong


def test_arrows_run_one_way_within_pipelines() -> None:
    """A build stands beside what fetches, not on it; what unpacks needs neither."""
    wrong = []
    for path, tree in rooms():
        folder = path.rpartition("/")[0]
        named = {name for name in imported(tree) if name.split(".")[0] == "pipelines"}
        if folder == "pipelines":
            wrong += [f"{path} -> {name}" for name in named if name.startswith("pipelines.fetching")]
        elif folder == "pipelines/unpacking":
            wrong += [f"{path} -> {name}" for name in named if not name.startswith("pipelines.unpacking")]
    assert not wrong


def test_every_package_is_installed() -> None:
    """A folder that pyproject.toml does not list works in the checkout and is missing from the wheel."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted({path.rpartition("/")[0].replace("/", ".") for path, _ in rooms()})


@pytest.mark.parametrize("library", ONE_ROOM)
def test_a_heavy_library_has_one_room(library: str) -> None:
    knows = {path for path, tree in rooms() if library in {name.split(".")[0] for name in imported(tree)}}
    assert knows <= ONE_ROOM[library]
    assert knows, f"no room knows {library} any more: take it off the list"


def test_one_room_opens_parquet() -> None:
    """Where Arrow's threads hold a Python file the interpreter aborts at its end, now and then: see `open_parquet`."""
    readers = {"ParquetFile", "ParquetDataset", "read_table", "read_schema"}
    for room, tree in rooms():
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pq"
        }
        assert room == "manifests/tables.py" or not used & readers, room


def test_torch_and_its_family_live_in_salmonn_alone() -> None:
    family = {"torch", "torchaudio", "transformers", "peft", "safetensors"}
    homes = {path.split("/")[0] for path, tree in rooms() if {name.split(".")[0] for name in imported(tree)} & family}
    assert homes <= {"salmonn"}


def test_no_import_of_a_package_brings_in_what_its_users_lack(tmp_path: Path) -> None:
    heavy = ("torch", "ray", "transformers", "webdataset", "peft", "datasets", "tensorflow")
    programs = {
        module: f"import sys, json; import {module}; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
        for module in (
            "manifests",
            "shards",
            "shards.stream",
            "shards.audit",
            "pipelines",
            "pipelines.build",
            "salmonn",
        )
    }
    # All at once, from a folder that is not the checkout.
    running = {
        module: subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=-1, stderr=-1, text=True)
        for module, code in programs.items()
    }
    brought = {}
    for module, process in running.items():
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, f"import {module}: {err}"
        brought[module] = json.loads(out)
    assert brought == {module: [] for module in programs}


@pytest.mark.parametrize("package", HOUSE)
def test_the_top_level_name_is_this_checkout(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).resolve() == (ROOT / package / "__init__.py").resolve()


def test_no_room_is_a_box_for_everything() -> None:
    boxes = {"utils", "util", "common", "helpers", "helper", "misc", "types"}
    parts = {path: set(Path(path).with_suffix("").parts) for path, _ in rooms()}
    assert not [path for path, names in parts.items() if names & boxes]


def test_no_room_is_longer_than_three_hundred_lines() -> None:
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path, _ in rooms()}
    assert not {path: lines for path, lines in lengths.items() if lines > 300}


def test_every_room_says_first_what_it_is() -> None:
    assert not [path for path, tree in rooms() if len(ast.get_docstring(tree) or "") < 10]


@pytest.mark.parametrize(
    "elsewhere",
    # The last: notes of the founders, that the repository does not hold.
    [r"\.\./shared", r"/work/", r"\bfacts/\w+\.md"],
)
def test_nothing_points_outside_the_checkout(elsewhere: str) -> None:
    product = [
        path for package in HOUSE for path in (ROOT / package).rglob("*") if path.suffix in (".py", ".toml", ".txt")
    ]
    assert not [path.relative_to(ROOT).as_posix() for path in product if re.search(elsewhere, path.read_text())]
