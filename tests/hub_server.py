"""A stand-in for the Hugging Face Hub that takes datasets: its API over HTTP on loopback, as far as pushing asks it.

Small texts are committed in the request; Parquet and tar go to a store by their sha256, as Git LFS has it, and a commit
that names what the store lacks is refused. What was committed can be listed, page by page, and read back.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import yaml

TOKEN = "hf_CanaryCanaryCanary"
OWNER = "me"
PAGE = 7
"""Entries of one page of a list of files: small, so that every push has several."""


@dataclass
class Fault:
    """An answer in place of the right one, to the requests whose method and path match, so many times."""

    pattern: str
    code: int
    times: int = 1
    after: int = 0
    """Requests that are answered rightly before."""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Commit:
    """What one commit did."""

    branch: str
    summary: str
    added: list[str]
    removed: list[str]


@dataclass
class Repo:
    """A dataset repository: for each branch, its files."""

    private: bool
    branches: dict[str, dict[str, bytes]]
    commits: list[Commit] = field(default_factory=list)


class HubServer(http.server.ThreadingHTTPServer):
    """The Hub. `store` is its storage by sha256, `asked` every request, `faults` what goes wrong."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.store: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.tokens: list[tuple[str, str | None]] = []
        self.faults: list[Fault] = []
        self.puts = 0
        self.silent_after: int | None = None
        """After so many files the store answers no more, until it is asked to."""
        self.speak = threading.Event()
        self.lock = threading.RLock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, repo: str, branch: str = "main") -> dict[str, bytes]:
        """What a repository holds, by path."""
        return self.repos[repo].branches[branch]

    def said(self, pattern: str) -> list[str]:
        """The requests that match."""
        return [f"{method} {path}" for method, path in self.asked if re.search(pattern, f"{method} {path}")]


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Run one."""
    server = HubServer()
    try:
        yield server
    finally:
        server.speak.set()
        server.shutdown()
        server.server_close()


def is_large(path: str) -> bool:
    """Whether a file goes to the store: what .gitattributes says there, and a dataset's repository has by default."""
    return path.endswith((".tar", ".parquet"))


def blob(content: bytes) -> str:
    """The name that git gives to a content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers for it."""

    server: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self, code: int, value: object = None, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        for name, content in headers.items():
            self.send_header(name.replace("_", "-"), content)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while length := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(length))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self) -> None:
        self.handle_one()

    def do_POST(self) -> None:
        self.handle_one()

    def do_PUT(self) -> None:
        self.handle_one()

    def do_HEAD(self) -> None:
        self.handle_one()

    def handle_one(self) -> None:
        hub, content = self.server, self.body()
        parts = urllib.parse.urlsplit(self.path)
        path, query = urllib.parse.unquote(parts.path), dict(urllib.parse.parse_qsl(parts.query))
        token = self.headers.get("Authorization")
        with hub.lock:
            hub.asked.append((self.command, path))
            hub.tokens.append((path, token))
            for fault in hub.faults:
                if not fault.times or not re.search(fault.pattern, f"{self.command} {path}"):
                    continue
                if fault.after:
                    fault.after -= 1
                else:
                    fault.times -= 1
                    return self.answer(fault.code, {"error": "no"}, **fault.headers)
        if path.startswith("/store/"):
            return self.keep(path.removeprefix("/store/"), content)
        if token != f"Bearer {TOKEN}":
            return self.answer(401, {}, X_Error_Message="Invalid credentials in Authorization header")
        if path == "/api/repos/create":
            return self.create(json.loads(content))
        if path == "/api/validate-yaml":
            return self.validate(json.loads(content)["content"])
        if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self.batch(match[1], json.loads(content))
        if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            files = hub.repos[match[1]].branches[match[2]]
            return self.answer(200, files[match[3]]) if match[3] in files else self.answer(404, {})
        match = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/(\w+)/([^/]+)", path)
        if not match or match[1] not in hub.repos:
            return self.answer(404, {}, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        repo, what, revision = hub.repos[match[1]], match[2], match[3]
        if what == "branch":
            made = repo.branches.setdefault(revision, None) is None
            repo.branches[revision] = repo.branches[revision] or dict(repo.branches["main"])
            return self.answer(200 if made else 409, {})
        if revision not in repo.branches:
            return self.answer(404, {}, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        answers = {"tree": self.tree, "preupload": self.preupload, "commit": self.commit, "revision": self.info}
        return answers[what](match[1], repo, revision, content, query)

    def create(self, asked: dict) -> None:
        hub, name = self.server, f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != OWNER:
            return self.answer(403, {}, X_Error_Message="You don't have the rights to create a dataset there")
        if name in hub.repos:
            return self.answer(
                409, {"error": "You already created this dataset repo", "url": f"{hub.url}/datasets/{name}"}
            )
        assert asked["type"] == "dataset"
        files = {".gitattributes": b"*.tar filter=lfs\n*.parquet filter=lfs\n"}
        hub.repos[name] = Repo(private=asked.get("visibility") == "private", branches={"main": files})
        return self.answer(200, {"url": f"{hub.url}/datasets/{name}"})

    def validate(self, text: str) -> None:
        head = yaml.safe_load(text.split("---\n")[1])
        names = [config["config_name"] for config in head.get("configs", [])]
        wrong = (
            []
            if len(set(names)) == len(names) and head.get("license")
            else [{"message": "no license, or twice a config"}]
        )
        self.answer(400 if wrong else 200, {"errors": wrong, "warnings": []})

    def tree(self, name: str, repo: Repo, revision: str, _: bytes, query: dict[str, str]) -> None:
        listed = [self.entry(path, content) for path, content in sorted(repo.branches[revision].items())]
        start = int(query.get("cursor", 0))
        more = {}
        if start + PAGE < len(listed):
            following = f"{self.server.url}/api/datasets/{name}/tree/{revision}?recursive=True&cursor={start + PAGE}"
            more = {"Link": f'<{following}>; rel="next"'}
        self.answer(200, listed[start : start + PAGE], **more)

    def entry(self, path: str, content: bytes) -> dict:
        made = {"type": "file", "path": path, "size": len(content), "oid": blob(content)}
        if is_large(path):
            digest = hashlib.sha256(content).hexdigest()
            made |= {"oid": blob(digest.encode()), "lfs": {"oid": digest, "size": len(content), "pointerSize": 130}}
        return made

    def preupload(self, name: str, repo: Repo, revision: str, content: bytes, _: dict[str, str]) -> None:
        have = repo.branches[revision]
        told = []
        for one in json.loads(content)["files"]:
            path = one["path"]
            known = (
                hashlib.sha256(have[path]).hexdigest() if path in have and is_large(path) else blob(have.get(path, b""))
            )
            mode = "lfs" if is_large(path) else "regular"
            told.append(
                {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": known if path in have else None}
            )
        self.answer(200, {"files": told})

    def batch(self, name: str, asked: dict) -> None:
        hub, objects = self.server, []
        assert asked["operation"] == "upload" and "basic" in asked["transfers"]
        for one in asked["objects"]:
            actions = {
                "upload": {"href": f"{hub.url}/store/{one['oid']}?signature=secret", "header": {}},
                "verify": {"href": f"{hub.url}/store/verify", "header": {}},
            }
            objects.append(one | ({} if one["oid"] in hub.store else {"actions": actions}))
        self.answer(200, {"transfer": "basic", "objects": objects})

    def keep(self, digest: str, content: bytes) -> None:
        hub = self.server
        if digest == "verify":
            asked = json.loads(content)
            right = len(hub.store.get(asked["oid"], b"")) == asked["size"]
            return self.answer(200 if right else 404, {})
        with hub.lock:
            silent = hub.silent_after is not None and hub.puts >= hub.silent_after
        if silent:
            hub.speak.wait(60)
            self.close_connection = True
            return None
        if hashlib.sha256(content).hexdigest() != digest:
            return self.answer(400, {})
        with hub.lock:
            hub.puts += 1
            hub.store[digest] = content
        return self.answer(200, {})

    def commit(self, name: str, repo: Repo, revision: str, content: bytes, _: dict[str, str]) -> None:
        lines = [json.loads(line) for line in content.splitlines()]
        assert lines[0]["key"] == "header"
        files, done = dict(repo.branches[revision]), Commit(revision, lines[0]["value"]["summary"], [], [])
        for line in lines[1:]:
            value = line["value"]
            path = value["path"]
            if line["key"] == "file" and not is_large(path):
                files[path] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile" and len(self.server.store.get(value["oid"], b"")) == value["size"]:
                files[path] = self.server.store[value["oid"]]
            elif line["key"] == "deletedFile" and path in files:
                del files[path]
                done.removed.append(path)
                continue
            else:
                return self.answer(400, {"error": f"{line['key']} {path} cannot be committed"})
            done.added.append(path)
        with self.server.lock:
            repo.branches[revision] = files
            repo.commits.append(done)
        oid = hashlib.sha1(content).hexdigest()
        told = {"commitUrl": f"{self.server.url}/datasets/{name}/commit/{oid}", "commitOid": oid, "hookOutput": ""}
        return self.answer(200, told)

    def info(self, name: str, repo: Repo, revision: str, _: bytes, __: dict[str, str]) -> None:
        self.answer(200, {"id": name, "sha": blob(repr(repo.commits).encode()), "private": repo.private})
