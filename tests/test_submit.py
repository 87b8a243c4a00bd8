"""Submitting: a build goes once, quoted, without secrets, and only to a cluster that asks who is there."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from manifests import Failed, UserError
from manifests.recipe import FOLDER
from pipelines import jobs as jobs_room
from pipelines.jobs import Jobs, address_of, on_this_machine, token
from pipelines.submit import Order, checked, command, first_name, name_of, number_of, pack_up
from pipelines.submit import submit as send
from pipelines.submit_commands import submit

TOKEN = "canary-7b1f0c5de2a94c33a1"
RECIPE = (FOLDER / "mini.toml").read_text()


class Head:
    """A Jobs API as Ray serves it: guarded or open, with jobs that are over when told so."""

    def __init__(self, host: str, guarded: bool) -> None:
        self.guarded = guarded
        self.jobs: dict[str, dict[str, Any]] = {}
        self.packages: dict[str, bytes] = {}
        self.seen: list[tuple[str, str, str]] = []
        self.logs = "one\ntwo\x1b[2J\nthree\n"
        self.exit_code = 0
        self.drops = 0
        self.instead: tuple[int, str] | None = None
        self.loop = asyncio.new_event_loop()
        self.port = 0
        started = threading.Event()
        self.thread = threading.Thread(target=self.serve, args=(host, started), daemon=True)
        self.thread.start()
        assert started.wait(10)
        self.address = f"http://{host}:{self.port}"

    def serve(self, host: str, started: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        app = web.Application(middlewares=[self.door])
        app.add_routes(
            [
                web.get("/api/jobs/", self.list_jobs),
                web.post("/api/jobs/", self.take),
                web.get("/api/jobs/{name}", self.one),
                web.get("/api/jobs/{name}/logs", self.log),
                web.get("/api/jobs/{name}/logs/tail", self.tail),
                web.get("/api/packages/gcs/{name}", self.package),
                web.put("/api/packages/gcs/{name}", self.store),
            ]
        )
        self.runner = web.AppRunner(app, shutdown_timeout=0)
        self.loop.run_until_complete(self.runner.setup())
        site = web.TCPSite(self.runner, host, 0)
        self.loop.run_until_complete(site.start())
        self.port = site._server.sockets[0].getsockname()[1]
        started.set()
        self.loop.run_forever()

    def close(self) -> None:
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(10)
            self.loop.run_until_complete(self.runner.cleanup())

    @web.middleware
    async def door(self, request: web.Request, handler: Any) -> Any:
        key = request.headers.get("Authorization", "")
        self.seen.append((request.method, request.path, key))
        if self.instead:
            return web.Response(status=self.instead[0], text="<html>", headers={"Location": self.instead[1]})
        if self.guarded and not key:
            return web.Response(status=401, text="Unauthorized: Missing authentication token")
        if self.guarded and key != f"Bearer {TOKEN}":
            return web.Response(status=403, text="Forbidden: Invalid authentication token")
        return await handler(request)

    async def list_jobs(self, request: web.Request) -> web.Response:
        return web.json_response([*self.jobs.values(), {"type": "DRIVER", "status": "RUNNING", "job_id": "01"}])

    async def take(self, request: web.Request) -> web.Response:
        order = await request.json()
        if order["submission_id"] in self.jobs:
            return web.Response(status=500, text=f"ValueError: Job {order['submission_id']} already exists.")
        self.jobs[order["submission_id"]] = order | {"status": "RUNNING", "type": "SUBMISSION"}
        return web.json_response({"submission_id": order["submission_id"]})

    async def one(self, request: web.Request) -> web.Response:
        return web.json_response(self.jobs[request.match_info["name"]])

    async def log(self, request: web.Request) -> web.Response:
        return web.json_response({"logs": self.logs})

    async def tail(self, request: web.Request) -> Any:
        stream = web.WebSocketResponse()
        await stream.prepare(request)
        if self.drops:
            self.drops -= 1
            await stream.send_str("one\n")
            request.transport.abort()
            return stream
        await stream.send_str("one\n")
        await stream.send_str("two\x1b[2J\n")
        self.end(request.match_info["name"], "SUCCEEDED" if self.exit_code == 0 else "FAILED")
        return stream

    async def package(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if request.match_info["name"] in self.packages else 404)

    async def store(self, request: web.Request) -> web.Response:
        self.packages[request.match_info["name"]] = await request.read()
        return web.Response()

    def end(self, name: str, status: str) -> None:
        self.jobs[name] |= {"status": status, "driver_exit_code": self.exit_code}


def own_address() -> str:
    """An address of this machine that others could reach; skips where there is none. No packet is sent."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            # A cluster counts as far away by an address that is not loopback: without one there is none to refuse.
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Head]]:
    """A function that starts a Jobs API; the environment holds a token."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setattr(jobs_room, "PAUSE", 0.05)
    made: list[Head] = []

    def start(host: str = "127.0.0.1", guarded: bool = True) -> Head:
        made.append(Head(host, guarded))
        return made[-1]

    yield start
    for head in made:
        head.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "mine.toml").write_text(RECIPE)
    return tmp_path


def order(place: Path, **changes: Any) -> Order:
    given = {"recipe": str(place / "mine.toml"), "root": str(place / "root"), "out": str(place / "out")}
    return Order(**(given | changes))


# What is sent


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1), min_size=2, max_size=5))
def test_a_hostile_name_stays_one_argument_in_a_shell(names: list[str]) -> None:
    made = command(Order(recipe=f"{names[0]}/x.toml", root=names[0], out=names[1], more=tuple(names[2:])))
    assert shlex.split(shlex.join(made)) == made
    # The recipe stands behind "--" and begins with "./": whatever its name, it is neither an option nor a name of ours.
    assert made[-2:] == ["--", "./x.toml"]


HOSTILE = [
    "$(touch MARK)",
    "`touch MARK`",
    "; touch MARK",
    "' ; touch MARK '",
    '" ; touch MARK',
    "-rf",
    "* | touch MARK",
]


def test_a_shell_runs_nothing_of_the_names_in_what_is_sent(heads: Callable[..., Head], place: Path) -> None:
    """The entrypoint as the cluster gets it, run as the cluster runs it, where `salmonn` tells what it was given."""
    head = heads()
    (place / "salmonn").write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    (place / "salmonn").chmod(0o755)
    environment = os.environ | {"PATH": f"{place}:{os.environ['PATH']}"}
    for name in HOSTILE:
        (place / f"root {name}").mkdir()
        (place / f"{name}.toml").write_text(RECIPE)
        where = {"recipe": f"{place}/{name}.toml", "root": f"{place}/root {name}", "out": f"{place}/out {name}"}
        _, sent = send(Order(**where, more=(name,)), head.address)
        before = set(place.iterdir())
        line = head.jobs[sent.job]["entrypoint"]
        done = subprocess.run(["/bin/sh", "-c", line], cwd=place, env=environment, capture_output=True, check=True)
        places = [f"--root={where['root']}", f"--out={where['out']}"]
        assert done.stdout.decode().split("\0")[:-1] == [
            *("build", *places, "--address=auto", name, "--", f"./{name}.toml")
        ]
        assert set(place.iterdir()) == before


def test_the_job_is_the_build_of_this_recipe_at_absolute_places(
    heads: Callable[..., Head], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-aws")
    monkeypatch.setenv("HF_TOKEN", "canary-hf")
    monkeypatch.chdir(place)
    head = heads()
    _, sent = send(order(place, root="root", out="out", workers=3, more=("--budget", "0.1")), head.address)
    job = head.jobs[sent.job]
    places = [f"--root={place}/root", f"--out={place}/out"]
    options = ["--address=auto", "--workers", "3", "--budget", "0.1"]
    assert shlex.split(job["entrypoint"]) == ["salmonn", "build", *places, *options, "--", "./mine.toml"]
    (name, content), *rest = head.packages.items()
    assert not rest and job["runtime_env"] == {"working_dir": f"gcs://{name}"}
    with zipfile.ZipFile(io.BytesIO(content)) as package:
        assert package.namelist() == ["mine.toml"] and package.read("mine.toml").decode() == RECIPE
    assert "canary" not in json.dumps(head.jobs)


def test_a_recipe_of_the_project_travels_by_name(heads: Callable[..., Head], place: Path) -> None:
    head = heads()
    _, sent = send(order(place, recipe="mini"), head.address)
    assert head.jobs[sent.job]["entrypoint"].endswith(" -- mini")
    assert head.jobs[sent.job]["runtime_env"] == {} and not head.packages


def test_code_takes_the_four_packages_and_nothing_that_lies_around(place: Path) -> None:
    package = pack_up(order(place, code=True))
    with zipfile.ZipFile(io.BytesIO(package.content)) as made:
        names = made.namelist()
        made.extractall(place / "there")
    assert {name.split("/")[0] for name in names} == {"manifests", "shards", "pipelines", "salmonn", "mine.toml"}
    assert not [name for name in names if "__pycache__" in name or name.startswith(("/", "."))]
    # What was sent runs, and is found before what is installed: -P leaves the folder of the test out.
    asked = "import manifests, salmonn.cli; print(manifests.__file__)"
    environment = os.environ | {"PYTHONPATH": str(place / "there")}
    done = subprocess.run([sys.executable, "-Pc", asked], env=environment, cwd="/", capture_output=True, text=True)
    assert done.stdout.strip() == str(place / "there" / "manifests" / "__init__.py"), done.stderr
    assert pack_up(order(place, code=True)) == package
    assert command(order(place, code=True))[:4] == ["python", "-m", "salmonn", "build"]


def test_a_recipe_that_is_wrong_is_not_sent(heads: Callable[..., Head], place: Path) -> None:
    head = heads()
    (place / "mine.toml").write_text(RECIPE.replace("weight =", "wieght =", 1))
    with pytest.raises(UserError, match="did you mean 'weight'"):
        send(order(place), head.address)
    assert not head.seen


# Who is asked


def test_a_guarded_cluster_sees_the_token_only_after_asking(heads: Callable[..., Head], place: Path) -> None:
    head = heads(own_address())
    send(order(place, shared_storage=True), head.address)
    assert head.seen[0] == ("GET", "/api/jobs/", "")
    assert {key for _, _, key in head.seen[1:]} == {f"Bearer {TOKEN}"}
    assert len(head.jobs) == 1


def test_an_open_cluster_that_others_reach_gets_no_job_and_no_token(heads: Callable[..., Head], place: Path) -> None:
    head = heads(own_address(), guarded=False)
    with pytest.raises(UserError, match=r"from anyone.*RAY_AUTH_MODE=token.*--insecure"):
        send(order(place, shared_storage=True), head.address)
    assert not head.jobs and [path for _, path, _ in head.seen] == ["/api/jobs/"]
    send(order(place, shared_storage=True), head.address, insecure=True)
    assert len(head.jobs) == 1
    assert {key for _, _, key in head.seen} == {""}


def test_an_open_cluster_on_this_machine_is_fine(heads: Callable[..., Head], place: Path) -> None:
    head = heads(guarded=False)
    send(order(place), head.address)
    assert len(head.jobs) == 1


@pytest.mark.parametrize(("mine", "words"), [("", "wants a token"), ("wrong", "refuses the token")])
def test_a_token_that_is_missing_or_wrong_is_told(
    heads: Callable[..., Head], place: Path, monkeypatch: pytest.MonkeyPatch, mine: str, words: str
) -> None:
    head = heads()
    monkeypatch.setenv("RAY_AUTH_TOKEN", mine)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", str(place))
    with pytest.raises(UserError, match=words) as told:
        send(order(place), head.address)
    assert mine not in str(told.value) or not mine
    assert not head.jobs


def test_the_token_is_found_where_ray_finds_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    assert token() == ""
    (place / ".ray").mkdir()
    (place / ".ray" / "auth_token").write_text("by default\n".replace(" ", "-"))
    assert token() == "by-default"
    (place / "elsewhere").write_text("by-path")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(place / "elsewhere"))
    assert token() == "by-path"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "by-variable")
    assert token() == "by-variable"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "two\r\nX-Header: lines")
    with pytest.raises(UserError, match="one line") as told:
        token()
    assert "X-Header" not in str(told.value)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(place / "nowhere"))
    with pytest.raises(UserError, match="nowhere"):
        token()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "head:8265",
        "ray://head:10001",
        "auto",
        "http://",
        "file:///etc/passwd",
        "http://head:x",
        "http://a b",
        "http://h\n",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="dashboard"):
        address_of(text)


@pytest.mark.parametrize("text", ["http://me:canary@head:8265", "http://head:8265/?token=canary", "http://head#canary"])
def test_an_address_with_a_secret_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(UserError, match="RAY_AUTH_TOKEN") as told:
        address_of(text)
    assert "canary" not in str(told.value)


def test_loopback_is_told_from_the_network() -> None:
    assert (
        on_this_machine("http://127.0.0.1:1")
        and on_this_machine("http://127.9.9.9")
        and on_this_machine("http://[::1]:1")
    )
    assert on_this_machine("http://localhost:8265")
    assert not on_this_machine("http://192.0.2.7") and not on_this_machine("http://0.0.0.0:8265")
    assert not on_this_machine("http://[2001:db8::1]:8265")
    with pytest.raises(UserError, match=r"no host 'no\.such\.host\.invalid'"):
        on_this_machine("http://no.such.host.invalid")


@pytest.mark.parametrize(
    ("kind", "words"), [("page", "is not the Jobs API"), ("redirect", "elsewhere"), ("none", "reach")]
)
def test_what_is_no_jobs_api_is_told(heads: Callable[..., Head], place: Path, kind: str, words: str) -> None:
    head = heads(guarded=False)
    trap = heads()
    head.instead = {"page": (200, ""), "redirect": (302, f"{trap.address}/api/jobs/"), "none": None}[kind]
    if kind == "none":
        head.close()
    with pytest.raises(UserError, match=words):
        send(order(place), head.address)
    assert not trap.seen


# Once


def test_an_order_sent_twice_runs_once(heads: Callable[..., Head], place: Path) -> None:
    head = heads()
    first = send(order(place), head.address)[1]
    second = send(order(place, workers=7), head.address)[1]
    assert first.new and not second.new and first.job == second.job and len(head.jobs) == 1
    with pytest.raises(UserError, match="would build twice"):
        send(order(place), head.address, again=True)
    head.end(first.job, "SUCCEEDED")
    assert send(order(place), head.address)[1].known is not None and len(head.jobs) == 1
    third = send(order(place), head.address, again=True)[1]
    assert third.job == f"{first.job}-2"
    head.end(third.job, "FAILED")
    with pytest.raises(UserError, match=rf"{third.job} .*FAILED.*--again"):
        send(order(place), head.address)
    assert send(order(place), head.address, again=True)[1].job == f"{first.job}-3"
    assert [entry["metadata"] for entry in head.jobs.values()] == [
        {"out": str(place / "out"), "recipe": "mine.toml"}
    ] * 3


def test_two_orders_do_not_write_to_one_place(heads: Callable[..., Head], place: Path) -> None:
    head = heads()
    first = send(order(place), head.address)[1]
    with pytest.raises(UserError, match=rf"{first.job} writes to"):
        send(order(place, recipe="mini"), head.address)
    assert send(order(place, recipe="mini", out=str(place / "other")), head.address)[1].new


def test_one_id_is_refused_by_the_cluster_if_two_send_at_once(heads: Callable[..., Head], place: Path) -> None:
    head = heads()
    jobs = Jobs(head.address)
    jobs.sign_in()
    assert jobs.send("a", "true", {}, {}) and not jobs.send("a", "true", {}, {})


def test_the_id_follows_what_is_built(place: Path) -> None:
    def name(**changes: Any) -> str:
        made = order(place, **changes)
        return name_of(made, pack_up(made))

    kept = name()
    assert kept == name(workers=5) and kept.startswith("salmonn-build-mine-")
    changed = [name(root="/x"), name(out="/x"), name(more=("--shard-mb", "64")), name(code=True), name(recipe="mini")]
    (place / "mine.toml").write_text(RECIPE + "\n# another\n")
    assert len({kept, name(), *changed}) == 7
    assert (first_name(f"{kept}-12"), number_of(f"{kept}-12")) == (kept, 12)
    assert (first_name(kept), number_of(kept)) == (kept, 1)
    assert first_name("raysubmit_x-2") == "raysubmit_x-2"
    for hostile in ("../../$(x) %.toml", "\u00e9.toml", "a" * 300 + ".toml"):
        made = name_of(order(place, recipe=hostile), pack_up(order(place)))
        assert first_name(f"{made}-2") == made and len(made) < 80


# Places


@pytest.mark.parametrize(
    ("changes", "near", "words"),
    [
        ({"root": "/data"}, False, r"--root /data is a folder of this machine; say --shared-storage"),
        ({"root": "s3://b/r", "out": "out"}, False, r"--out /.*/out is a folder of this machine"),
        ({"root": "/nowhere"}, True, r"--root /nowhere is not there"),
        ({"root": "memory://r"}, True, r"memory:// is not one of s3, gs, hf"),
        ({"root": "s3://b/r", "out": "https://host/out"}, False, r"https:// is not one of"),
        ({"out": "s3://key:canary@bucket/out", "root": "s3://b/r"}, False, r"credentials go into the environment"),
        ({"out": "", "shared_storage": True}, True, r"--out is ''"),
        ({"workers": 0}, True, r"--workers is 0"),
        ({"more": ("--out=x",)}, True, r"--out=x cannot stand"),
        ({"more": ("--", "x")}, True, r"-- cannot stand"),
    ],
)
def test_a_place_that_the_nodes_would_not_find_is_refused(
    place: Path, changes: dict[str, Any], near: bool, words: str
) -> None:
    with pytest.raises(UserError, match=words) as told:
        checked(order(place, **changes), near)
    assert "canary" not in str(told.value)


def test_places_that_all_nodes_see_are_taken(place: Path) -> None:
    for near in (True, False):
        far = checked(order(place, root="s3://bucket/root/", out="gs://bucket/out"), near)
        assert (far.root, far.out) == ("s3://bucket/root", "gs://bucket/out")
        assert checked(order(place, root="/data", shared_storage=True), near).root == "/data"


# Following


def test_the_output_comes_once_and_the_exit_code_with_it(
    heads: Callable[..., Head], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = heads()
    head.exit_code, head.drops = 3, 2
    assert submit("mini", str(place / "root"), str(place / "out"), head.address) == 3
    printed = capsys.readouterr().out
    # Twice the stream broke after its first line; the last line came only after its end.
    assert "one\ntwo[2J\nthree\n" in printed and printed.count("one\n") == 1
    assert "FAILED" in printed and TOKEN not in printed
    assert len(head.jobs) == 1


def test_without_waiting_the_command_says_how_to_go_on(
    heads: Callable[..., Head], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = heads()
    assert submit("mini", str(place / "root"), str(place / "out"), head.address, wait=False) == 0
    assert "ray job stop" in capsys.readouterr().out
    assert "/logs/tail" not in str(head.seen)


def test_a_cluster_lost_for_long_is_told(
    heads: Callable[..., Head], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_room, "PATIENCE", 2)
    head = heads()
    jobs, sent = send(order(place), head.address)
    head.close()
    with pytest.raises(Failed, match=f"lost sight of {sent.job}"):
        jobs.follow(sent.job, print)


# A real cluster, started as the README says


def free_ports(count: int) -> list[int]:
    """Ports outside of those that Ray gives its workers."""
    held = []
    for port in range(21_000 + os.getpid() % 500 * 16, 60_000):
        with contextlib.suppress(OSError):
            held.append(socket.create_server(("127.0.0.1", port)))
        if len(held) == count:
            break
    ports = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return ports


def knock(url: str, data: bytes | None = None, **headers: str) -> int:
    """Return the status of a request, 0 if nobody answers."""
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.fixture
def ray_head(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a real head that wants a token, and the environment of who has it. Stopped in any case."""
    home = Path("/tmp") / f"salmonn-head-{os.getpid()}"  # sockets below it: their paths may have 107 characters
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(home), "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    subprocess.run(["ray", "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)
    ports = dict(
        zip(("dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port"), free_ports(3), strict=True)
    )
    size = ["--num-cpus=2", "--object-store-memory=83886080", "--min-worker-port=0", "--max-worker-port=0"]
    place = ["--port=0", "--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1", f"--temp-dir={home}/r"]
    given = [f"--{name}={port}" for name, port in ports.items()]
    log = (tmp_path / "head.log").open("wb")
    head = subprocess.Popen(
        ["ray", "start", "--head", "--block", *place, *given, *size], env=environment, stdout=log, stderr=log
    )
    family: list[psutil.Process] = []
    try:
        address = f"http://127.0.0.1:{ports['dashboard-port']}"
        end = time.monotonic() + 90
        while knock(f"{address}/api/jobs/") != 401:
            assert head.poll() is None and time.monotonic() < end, (tmp_path / "head.log").read_text()
            time.sleep(0.5)
        yield address, environment
    finally:
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(head.pid).children(recursive=True)
        head.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(30)
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        head.kill()
        head.wait(30)
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.slow
def test_a_build_runs_on_a_cluster_started_as_the_readme_says(
    ray_head: tuple[str, dict[str, str]], tmp_path: Path, corpora: Path
) -> None:
    address, environment = ray_head
    secret = (Path(environment["HOME"]) / ".ray" / "auth_token").read_text().strip()
    mark = tmp_path / "mark"
    body = json.dumps({"entrypoint": f"touch {shlex.quote(str(mark))}"}).encode()
    assert knock(f"{address}/api/jobs/", body) == 401
    assert knock(f"{address}/api/jobs/", body, Authorization="Bearer wrong") == 403

    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "raw").symlink_to(corpora)
    out = tmp_path / "out; touch here"
    recipe = tmp_path / "my $(touch here).toml"
    recipe.write_text(
        'title = "Mine"\n[[instruct]]\ntask = "asr"\ncorpus = "librispeech"\nsplits = ["train-clean-100"]\n'
    )
    asked = ["submit", str(recipe), "--root", str(tmp_path / "root"), "--out", str(out), "--address", address]

    def salmonn(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "salmonn.cli", *arguments]
        return subprocess.run(program, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200)

    first = salmonn(*asked)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "SUCCEEDED" in first.stdout and "1 shards written" in first.stdout
    whole = salmonn("verify", str(out))
    assert whole.returncode == 0 and "39 samples" in whole.stdout, whole.stdout + whole.stderr
    second = salmonn(*asked)
    assert second.returncode == 0 and "has built this before" in second.stdout
    # A build that fails hands its exit code and what it said on.
    failed = salmonn(*asked[:5], str(tmp_path / "other"), *asked[6:], "--", "--no-such-option")
    assert failed.returncode == 2 and "FAILED" in failed.stdout, failed.stdout + failed.stderr
    assert "No such option" in failed.stdout and not failed.stderr

    assert not mark.exists() and not [path for path in tmp_path.iterdir() if path.name == "here"]
    assert secret not in first.stdout + first.stderr + second.stdout + failed.stdout
    with urllib.request.urlopen(
        urllib.request.Request(f"{address}/api/jobs/", headers={"Authorization": f"Bearer {secret}"})
    ) as answer:
        told = answer.read().decode()
    assert secret not in told and "my $(touch here).toml" in told
