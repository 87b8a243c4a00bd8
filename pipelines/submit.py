"""Submit: a build as a job of a running Ray cluster, once, and only to a cluster that asks who is there."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shlex
import zipfile
from pathlib import Path

import msgspec

import manifests
from manifests import UserError, files, load_recipe
from pipelines.jobs import Job, Jobs

SHARED = ("s3", "gs", "hf")
"""Schemes of storage that every node can reach."""
PACKAGES = ("manifests", "shards", "pipelines", "salmonn")
OURS = ("--root", "--out", "--address", "--workers")
"""Options of `salmonn build` that `submit` sets itself."""
NAME = re.compile(r"(salmonn-build-[a-z0-9-]*-[0-9a-f]{16})(?:-([0-9]+))?")
FIXED = (1980, 1, 1, 0, 0, 0)
"""The time of every file in a package: the same content gives the same package."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A build to run on a cluster."""

    recipe: str
    """A recipe's name, or the path of its TOML file."""
    root: str
    out: str
    workers: int | None = None
    more: tuple[str, ...] = ()
    """Further options of ``salmonn build``, as typed."""
    code: bool = False
    """Run this checkout's code there, not the cluster's."""
    shared_storage: bool = False
    """Every node sees the local paths `root` and `out`."""


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """What travels with a job: a zip, and its name at the cluster, made of its digest. Both empty if nothing does."""

    name: str = ""
    content: bytes = b""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an order."""

    job: str
    """Its submission id."""
    new: bool
    """Whether this call has sent it."""
    known: Job | None = None
    """The job as found, if it was there."""


def submit(order: Order, address: str, *, insecure: bool = False, again: bool = False) -> tuple[Jobs, Sent]:
    """Send an order to the cluster at `address`, unless it is there; UserError says what is wrong with either."""
    jobs = Jobs(address)
    order = checked(order, jobs.near)
    if jobs.is_guarded():
        jobs.sign_in()
    elif not jobs.near and not insecure:
        raise UserError(
            f"{jobs.address} takes jobs from anyone, without a token: whoever reaches it runs commands there. Start it "
            "with RAY_AUTH_MODE=token (deploy/README.md), or say --insecure if nobody else can reach it"
        )
    package = pack_up(order)
    name = name_of(order, package)
    known = {job.submission_id or "": job for job in jobs.all()}
    if at_work := running(order, name, known, again):
        return jobs, Sent(job=at_work, new=False, known=known[at_work])
    last = max((run for run in known if first_name(run) == name), key=number_of, default="")
    if last and not again:
        if known[last].status == "SUCCEEDED":
            return jobs, Sent(job=last, new=False, known=known[last])
        raise UserError(f"the job {last} has ended before ({known[last].status}); --again goes on where it stopped")
    name = f"{name}-{number_of(last) + 1}" if last else name
    if package.name:
        jobs.upload(package.name, package.content)
    env = {"working_dir": f"gcs://{package.name}"} if package.name else {}
    about = {"out": order.out, "recipe": os.path.basename(order.recipe)}
    # No secret here: the dashboard shows what a job was given. Nodes have AWS_*, HF_TOKEN and such of their own.
    if not jobs.send(name, shlex.join(command(order)), env, about):
        raise UserError(f"somebody has sent {name} at this moment; the same command now follows it")
    return jobs, Sent(job=name, new=True)


def running(order: Order, name: str, known: dict[str, Job], again: bool) -> str:
    """Return the job that carries out this order now, empty if none does; UserError if another writes to its place."""
    busy = [run for run, job in known.items() if not job.over and (job.metadata or {}).get("out") == order.out]
    if others := [run for run in busy if first_name(run) != name]:
        raise UserError(f"the job {others[0]} writes to {order.out} now; wait, or stop it: ray job stop {others[0]}")
    if busy and again:
        raise UserError(f"the job {busy[0]} still runs, so --again would build twice; without --again it is followed")
    return busy[0] if busy else ""


def checked(order: Order, near: bool) -> Order:
    """Return an order whose places mean the same on every node; UserError for one that cannot run there."""
    load_recipe(order.recipe)
    if order.workers is not None and order.workers < 1:
        raise UserError(f"--workers is {order.workers}; it must be at least 1")
    if ours := [text for text in order.more if text.split("=")[0] in OURS or text == "--"]:
        raise UserError(f"{ours[0]} cannot stand among the options passed on; give it to submit itself")
    places = {name: place_of(name, getattr(order, name), order.shared_storage, near) for name in ("root", "out")}
    return msgspec.structs.replace(order, **places)


def place_of(option: str, url: str, shared_storage: bool, near: bool) -> str:
    """Return a place as every node can name it; UserError if the nodes would not find it, or if it holds a secret."""
    shown = files.redact(url)
    if not url or not url.isprintable():
        raise UserError(f"--{option} is {shown!r}; write a folder or an address")
    if files.is_local(url):
        path = files.absolute(url)
        if shared_storage:
            return path
        if not near:
            raise UserError(
                f"--{option} {path} is a folder of this machine; say --shared-storage if every node of the cluster "
                f"sees it under that name, or use {', '.join(f'{scheme}://' for scheme in SHARED)}"
            )
        if option == "root" and not files.is_folder(path):
            raise UserError(
                f"--root {path} is not there; if the cluster is behind a tunnel and has it, say --shared-storage"
            )
        return path
    scheme = url.split("://", 1)[0]
    if scheme not in SHARED:
        raise UserError(f"--{option} {shown}: every node must reach it; {scheme}:// is not one of {', '.join(SHARED)}")
    if shown != url:
        raise UserError(
            f"--{option} {shown} holds a secret or a query; credentials go into the environment of the nodes"
        )
    return url.rstrip("/")


def command(order: Order) -> list[str]:
    """Return the command of the job. Whoever needs a text of it quotes every part: the API runs it through a shell."""
    program = ["python", "-m", "salmonn"] if order.code else ["salmonn"]
    workers = ["--workers", str(order.workers)] if order.workers else []
    own = order.recipe.endswith(".toml")
    recipe = f"./{os.path.basename(order.recipe)}" if own else order.recipe
    places = [f"--root={order.root}", f"--out={order.out}"]
    return [*program, "build", *places, "--address=auto", *workers, *order.more, "--", recipe]


def pack_up(order: Order) -> Package:
    """Return what must travel: the user's own recipe, and with `code` the four packages of this checkout.

    Named file by file and not "this folder without .git": what else lies around, tokens among it, stays here.
    """
    content: dict[str, bytes] = {}
    if order.code:
        top = Path(manifests.__file__).parent.parent
        for path in (path for package in PACKAGES for path in (top / package).rglob("*")):
            if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts:
                content[path.relative_to(top).as_posix()] = files.read_bytes(path)
    if order.recipe.endswith(".toml"):
        name = os.path.basename(order.recipe)
        if not name.isprintable() or "\\" in name:
            raise UserError(f"the recipe's file is called {name!r}; take plain characters, it must travel")
        content[name] = files.read_bytes(order.recipe)
    if not content:
        return Package()
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as made:
        for name in sorted(content):
            entry = zipfile.ZipInfo(name, FIXED)
            entry.external_attr = 0o644 << 16
            made.writestr(entry, content[name], zipfile.ZIP_DEFLATED)
    zipped = sink.getvalue()
    return Package(name=f"_ray_pkg_{hashlib.sha256(zipped).hexdigest()[:32]}.zip", content=zipped)


def name_of(order: Order, package: Package) -> str:
    """Return the submission id of an order: the same for whatever would make the same dataset at the same place.

    How many workers is not part of it. Ray refuses an id that it has seen, so an order sent twice runs once.
    """
    recipe = os.path.basename(order.recipe)
    what = [recipe, order.root, order.out, order.more, package.name]
    digest = hashlib.sha256(msgspec.json.encode(what)).hexdigest()
    plain = re.sub(r"[^a-z0-9]+", "-", recipe.removesuffix(".toml").lower())[:40].strip("-")
    return f"salmonn-build-{plain}-{digest[:16]}"


def first_name(name: str) -> str:
    """Return the id under which an order was sent first, whatever number --again has put behind it."""
    found = NAME.fullmatch(name)
    return found[1] if found else name


def number_of(name: str) -> int:
    """Return which run of its order an id is: 1, or the number that --again has put behind it."""
    found = NAME.fullmatch(name)
    return int(found[2] or 1) if found else 1
