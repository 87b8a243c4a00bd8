"""Hostile addresses and names in facts and options, certificates and proxies: who is talked to, and who never is."""

from __future__ import annotations

import http.server
import itertools
import select
import shutil
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fault_server import MODES, FaultServer, Handler
from manifests import Failed, UserError, load_corpus
from pipelines.fetching import adopt, hosts, hub_client
from pipelines.fetching import commands as fetch_commands
from pipelines.fetching.fetch import Settings, fetch_lane, lanes, link
from pipelines.fetching.hub import fetch_hub, plan_hub
from pipelines.fetching.wanted import Limits
from pipelines.items import items_of, read_outcome
from test_fetch import TOML
from test_hub import Hub, small_wavcaps

CANARY = "canary-90c2b"
BODY = b"path,text\n1,one\n"
WORLD = {
    "loop.example": ["127.0.0.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "meta.example": ["169.254.169.254"],
    "both.example": ["93.184.216.34", "127.0.0.1"],
    "public.example": ["93.184.216.34"],
}
"""What the name service of these tests knows."""
SCHEMES = [
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "ftp://public.example/x.csv",
    "gopher://127.0.0.1:70/x.csv",
    "data:text/csv,path",
    "pipe:touch marker",
    "pipe://touch marker",
    "-oProxyCommand=touch marker",
    "--output=marker",
    "$(touch marker)",
    "`touch marker`",
    "; touch marker",
    "javascript:alert(1)//x.csv",
    "\\\\host\\share\\x.csv",
    "//127.0.0.1/x.csv",
    "",
]
PLACES = [
    "http://127.0.0.1:{port}/x.csv",
    "http://127.1:{port}/x.csv",
    "http://2130706433:{port}/x.csv",
    "http://0x7f000001:{port}/x.csv",
    "http://0x7f.0.0.1:{port}/x.csv",
    "http://0177.0.0.1:{port}/x.csv",
    "http://0:{port}/x.csv",
    "http://[::1]:{port}/x.csv",
    "http://[::1%25lo]:{port}/x.csv",
    "http://[::ffff:127.0.0.1]:{port}/x.csv",
    "http://[::ffff:7f00:1]:{port}/x.csv",
    "http://[::127.0.0.1]:{port}/x.csv",
    "http://[64:ff9b::7f00:1]:{port}/x.csv",
    "http://[2002:7f00:1::]:{port}/x.csv",
    "http://localhost:{port}/x.csv",
    "http://localhost.:{port}/x.csv",
    "http://LOCALHOST:{port}/x.csv",
    "http://some.localhost:{port}/x.csv",
    "http://public.example@127.0.0.1:{port}/x.csv",
    "http://public.example:80@127.0.0.1:{port}/x.csv",
    "http://127.0.0.1:{port}\\@public.example/x.csv",
    "http://127.0.0.1:{port}#@public.example/x.csv",
    "http://127.0.0.1:{port}?@public.example/x.csv",
    "http://127%2e0%2e0%2e1:{port}/x.csv",
    "http://\uff11\uff12\uff17.0.0.1:{port}/x.csv",
    "http://\u2460\u2461\u2466.0.0.1:{port}/x.csv",
    "http://10.0.0.1/x.csv",
    "http://192.168.0.1/x.csv",
    "http://[fec0::1]/x.csv",
    "http://public.example:0/x.csv",
    "http://public.example:99999/x.csv",
    "http://public.example/a b.csv",
    "http://public.example/x\r\nHost: 127.0.0.1\r\n/y.csv",
]
METADATA = [
    "http://169.254.169.254/latest/x.csv",
    "http://169.254.169.254./latest/x.csv",
    "http://169.254.43518/x.csv",
    "http://2852039166/x.csv",
    "http://0xA9FEA9FE/x.csv",
    "http://0251.0376.0251.0376/x.csv",
    "http://[::ffff:169.254.169.254]/x.csv",
    "http://[::ffff:a9fe:a9fe]/x.csv",
    "http://[::169.254.169.254]/x.csv",
    "http://[64:ff9b::a9fe:a9fe]/x.csv",
    "http://[64:ff9b:1::a9fe:a9fe]/x.csv",
    "http://[fd00:ec2::254]/x.csv",
    "http://[fe80::1%25eth0]/x.csv",
    "http://public.example@169.254.169.254/x.csv",
    "http://100.100.100.200/x.csv",
]
NAMED = ["http://loop.example:{port}/x.csv", "http://mapped.example:{port}/x.csv", "http://both.example:{port}/x.csv"]
NAMED += ["http://xn--/x.csv", "http://nowhere.example/x.csv"]
UNSAFE = [
    "../x.csv",
    "..",
    "a/../../x.csv",
    "%2e%2e",
    "%2e%2e%2fx.csv",
    "/etc/x.csv",
    "-rf",
    "--output=x.csv",
    ".bashrc",
    "a\nb.csv",
    "a b.csv",
    "$(touch marker)",
    "`touch marker`",
    "x;touch marker",
    "x|touch marker",
    "a\\b.csv",
    "a//b.csv",
    "CON\x00.csv",
    "x\u202ecsv.exe",
    "~root",
]


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple]:
    """A name service of our own, no proxies, a working folder of its own; returns every peer that is dialled."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE", *hosts.AUTHORITIES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    real, dialled = socket.getaddrinfo, []

    def look_up(host: str, port: int, *args: object, **more: object) -> list:
        if host.endswith(".example"):
            found = WORLD.get(host)
            if not found:
                raise socket.gaierror(-2, "unknown")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found]
        return real(host, port, *args, **more)

    connect = socket.create_connection

    def dial(peer: tuple[str, int], *args: object, **more: object) -> socket.socket:
        dialled.append(peer)
        if peer[0] == "93.184.216.34":
            # The machine in the wide world is ours on loopback.
            peer = ("127.0.0.1", peer[1])
        return connect(peer, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket, "create_connection", dial)
    return dialled


@pytest.fixture(scope="module")
def plain() -> Iterator[FaultServer]:
    with FaultServer({"x.csv": BODY}) as made:
        yield made


@pytest.fixture
def server(plain: FaultServer) -> FaultServer:
    plain.requests.clear()
    return plain


@pytest.fixture
def trust() -> Iterator[None]:
    """Certificates are read once in a process: here, anew in each test."""
    hosts.trust.cache_clear()
    yield
    hosts.trust.cache_clear()


Make = Callable[..., tuple[str, Path]]


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A function that fetches a corpus whose facts name an address, and returns what was told and the root."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setattr("manifests.corpus.FOLDER", folder)
    monkeypatch.setitem(sys.modules, "manifests.corpora.small", SimpleNamespace(clips=lambda *_: iter(())))

    def quoted(text: str) -> str:
        return '"' + "".join(f"\\U{ord(one):08x}" for one in text) + '"'

    def make(url: str, name: str = "x.csv", into: str = "", allow_private: bool = False) -> tuple[str, Path]:
        text = TOML + "[splits.a]\nclips = 1\nhours = 1.0\n[[splits.a.archives]]\n"
        text += f"url = {quoted(url)}\nname = {quoted(name)}\ninto = {quoted(into)}\n"
        (folder / "small.toml").write_text(text)
        load_corpus.cache_clear()
        root = tmp_path / "root"
        limits = Limits(allow_private=allow_private, deadline=10.0, connect=5.0, stall=5.0, tries=1)
        try:
            items = items_of(load_corpus("small"), ("a",))
        except UserError as error:
            return str(error), root
        for lane in lanes(items, Settings(root=str(root), limits=limits)):
            fetch_lane(lane)
        outcome = read_outcome(str(root), items[0])
        return (outcome.why if outcome.state != "ok" else ""), root

    yield make
    load_corpus.cache_clear()


def untouched(tmp_path: Path, root: Path) -> None:
    """Nothing was made but the records of what failed."""
    assert list((tmp_path / "cwd").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} <= {"cwd", "registry", "root"}
    found = [path for path in root.rglob("*") if path.is_file() and path.stat().st_size]
    assert [path for path in found if not path.is_relative_to(root / "fetch")] == []


def clear(said: str) -> None:
    """It is one sentence a person can read."""
    assert said and "\n" not in said and said.isprintable() and len(said) < 250 and "Traceback" not in said


@pytest.mark.parametrize("url", SCHEMES + PLACES + METADATA + NAMED)
def test_a_hostile_address_in_facts_is_not_fetched(
    url: str, attempt: Make, server: FaultServer, tmp_path: Path, world: list
) -> None:
    said, root = attempt(url.replace("{port}", server.url.rsplit(":", 1)[1]))
    clear(said)
    assert world == [] and server.requests == []
    untouched(tmp_path, root)


@pytest.mark.parametrize("url", METADATA)
def test_the_metadata_of_a_cloud_is_never_fetched(url: str, attempt: Make, tmp_path: Path, world: list) -> None:
    said, root = attempt(url, allow_private=True)
    clear(said)
    assert world == []
    untouched(tmp_path, root)


@pytest.mark.parametrize("url", PLACES + METADATA)
def test_nor_is_it_asked_of_a_proxy(
    url: str, attempt: Make, server: FaultServer, monkeypatch: pytest.MonkeyPatch, world: list
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    said, _ = attempt(url.replace("{port}", "80"))
    clear(said)
    assert world == [] and server.requests == []


@pytest.mark.parametrize(
    ("steps", "url"),
    zip(itertools.cycle((1, 3)), [*PLACES[:18], *METADATA, *NAMED, "file:///etc/passwd", "//169.254.169.254/x.csv"]),
)
def test_a_chain_of_redirects_leads_nowhere_either(
    url: str, steps: int, attempt: Make, server: FaultServer, tmp_path: Path, world: list
) -> None:
    """From a machine in the wide world, by way of itself, to where it must not lead."""
    port = server.url.rsplit(":", 1)[1]
    chain = [f"http://public.example:{port}/to/always/{step}/x.csv" for step in range(steps)]
    chain.append(url.replace("{port}", port))
    following = {f"/to/always/{step}/x.csv": chain[step + 1] for step in range(steps)}

    def to(ask: Handler) -> None:
        ask.head(302, Location=following[urllib.parse.urlsplit(ask.path).path], Content_Length=0)

    MODES["to"] = to
    try:
        said, root = attempt(chain[0])
    finally:
        del MODES["to"]
    clear(said)
    assert world == [("93.184.216.34", int(port))] * steps and len(server.requests) == steps
    untouched(tmp_path, root)


def test_the_machine_in_the_wide_world_is_fetched_from(attempt: Make, server: FaultServer, world: list) -> None:
    """What shows that the tests above could fail."""
    said, root = attempt(f"http://public.example:{server.url.rsplit(':', 1)[1]}/good/0/k/x.csv")
    assert said == "" and (root / "raw/small/x.csv").read_bytes() == BODY and len(world) == 1
    said, _ = attempt(f"{server.url}/good/0/k/x.csv", name="y.csv", allow_private=True)
    assert said == "" and len(server.requests) == 2, "private addresses are, where the user says so"


@pytest.mark.parametrize("place", ["name", "into"])
@pytest.mark.parametrize("name", UNSAFE)
def test_a_hostile_name_in_facts_is_refused(
    name: str, place: str, attempt: Make, server: FaultServer, tmp_path: Path
) -> None:
    said, root = attempt(f"{server.url}/good/0/k/x.csv", allow_private=True, **{place: name})
    clear(said)
    assert "small.toml" in said and server.requests == []
    untouched(tmp_path, root)


@pytest.mark.parametrize("last", ["..", "%2e%2e", "%2e%2e%2fx.csv", "a%00b", "..%5cx", "-x"])
def test_a_name_out_of_an_address_is_no_better(last: str, attempt: Make, server: FaultServer, tmp_path: Path) -> None:
    said, root = attempt(f"{server.url}/good/0/k/{last}", name="", allow_private=True)
    clear(said)
    assert server.requests == []
    untouched(tmp_path, root)


@pytest.mark.parametrize("place", ["../../outside", "/etc/x", "a/../../../x", "-x"])
def test_a_link_out_of_the_root_is_refused(place: str, tmp_path: Path) -> None:
    facts = SimpleNamespace(links={place: "librispeech/LibriSpeech"})
    (tmp_path / "root/raw/librispeech/LibriSpeech").mkdir(parents=True)
    with pytest.raises(UserError, match="a link"):
        link(SimpleNamespace(name="small", facts=facts), str(tmp_path / "root"))
    with pytest.raises(UserError, match="a link"):
        link(SimpleNamespace(name="small", facts=SimpleNamespace(links={"x": place})), str(tmp_path / "root"))
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("mirror", [one for one in SCHEMES if one])
def test_a_hostile_mirror_is_refused(mirror: str, tmp_path: Path, world: list) -> None:
    with pytest.raises(UserError, match="--mirror") as caught:
        fetch_commands.fetch(["wikiqa"], str(tmp_path / "root"), mirror=mirror)
    clear(str(caught.value))
    assert world == [] and {path.name for path in tmp_path.iterdir()} == {"cwd"}


@pytest.mark.parametrize("source", [*UNSAFE, *(f"wikiqa:{one}" for one in UNSAFE), "file:///etc/passwd", "pipe:x"])
def test_a_hostile_source_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        fetch_commands.fetch([source], str(tmp_path / "root"))
    clear(str(caught.value))
    assert not (tmp_path / "root").exists() and list((tmp_path / "cwd").iterdir()) == []


@pytest.mark.parametrize("folder", ["$(touch marker)", "-x", "a\nb", "pipe:touch marker", "; touch marker", "../cwd/x"])
def test_a_hostile_folder_is_a_folder_and_no_more(folder: str, tmp_path: Path, corpora: Path) -> None:
    """Names of folders are the user's: what they spell is taken as it stands."""
    shutil.copytree(corpora / "wikiqa", tmp_path / "cwd" / folder)
    made = adopt.adopt("wikiqa", folder, f"{folder} root")
    assert made.files and (tmp_path / "cwd" / f"{folder} root").exists()
    assert not list(tmp_path.rglob("marker"))


@pytest.mark.parametrize(
    "root", ["s3://bucket/x", "pipe://touch marker", f"http://me:{CANARY}@host/x?{CANARY}", "hf://x"]
)
def test_a_root_that_is_no_folder_is_refused(root: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a folder of this machine") as caught:
        fetch_commands.fetch(["wikiqa"], root)
    assert CANARY not in str(caught.value) and list((tmp_path / "cwd").iterdir()) == []


# Certificates and proxies.


class Tunnel(socketserver.BaseRequestHandler):
    """A proxy that knows CONNECT: it sees names and ports, and bytes that it cannot read."""

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.request.recv(1 << 16)
        self.server.asked.append(head.decode().splitlines())
        host, _, port = head.split()[1].decode().rpartition(":")
        if self.server.refuses:
            self.request.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        peer = ("127.0.0.1" if host.endswith(".example") else host, int(port))
        with socket.socket() as there:
            there.connect(peer)
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            pair = {self.request: there, there: self.request}
            while True:
                for one in select.select(list(pair), [], [], 10)[0]:
                    data = one.recv(1 << 16)
                    if not data:
                        return
                    pair[one].sendall(data)


@pytest.fixture
def proxy() -> Iterator[socketserver.ThreadingTCPServer]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel) as made:
        made.daemon_threads, made.asked, made.refuses = True, [], False
        threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that vouches for itself, and its key beside it."""
    if not shutil.which("openssl"):
        # Python makes no certificates, and a bundled one would run out.
        pytest.skip("there is no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    names = "subjectAltName=DNS:localhost,DNS:public.example,IP:127.0.0.1"
    made = ["-keyout", "key.pem", "-out", "own.pem", "-days", "2", "-subj", "/CN=localhost", "-addext", names]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", *made]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "own.pem"


def encrypt(server: http.server.HTTPServer, certificate: Path) -> int:
    """Let a server speak TLS; return its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server.server_port


@pytest.fixture
def encrypted(certificate: Path, trust: None) -> Iterator[FaultServer]:
    with FaultServer({"x.csv": BODY}) as made:
        encrypt(made, certificate)
        yield made


@pytest.fixture
def secured(encrypted: FaultServer) -> str:
    return f"https://localhost:{encrypted.server_port}/good/0/k/x.csv"


def test_a_certificate_that_nobody_vouches_for_is_refused(secured: str, attempt: Make, encrypted: FaultServer) -> None:
    said, root = attempt(secured, allow_private=True)
    assert "localhost shows a certificate that is not trusted (self-signed certificate)" in said
    assert "SSL_CERT_FILE" in said and encrypted.requests == [] and not (root / "raw/small/x.csv").exists()
    clear(said)


@pytest.mark.parametrize("name", hosts.AUTHORITIES)
def test_the_environment_names_whom_to_trust(
    name: str, secured: str, attempt: Make, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, str(certificate))
    said, root = attempt(secured, allow_private=True)
    assert said == "" and (root / "raw/small/x.csv").read_bytes() == BODY


def test_a_certificate_of_another_host_is_refused(
    secured: str, attempt: Make, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    said, _ = attempt(secured.replace("localhost", "loop.example"), allow_private=True)
    assert "loop.example shows a certificate that is not trusted (Hostname mismatch" in said


def test_a_name_of_no_certificates_is_told(
    secured: str, attempt: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nowhere.pem"))
    with pytest.raises(UserError, match=r"REQUESTS_CA_BUNDLE is .* no certificates can be read"):
        attempt(secured, allow_private=True)


def test_plain_http_where_tls_was_meant_is_told(attempt: Make, server: FaultServer) -> None:
    said, _ = attempt(server.url.replace("http://", "https://") + "/good/0/k/x.csv", allow_private=True)
    assert "does not speak TLS" in said


def test_a_tunnel_is_dug_through_a_proxy(
    secured: str,
    attempt: Make,
    certificate: Path,
    proxy: socketserver.ThreadingTCPServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", f"http://me:{CANARY}@127.0.0.1:{proxy.server_address[1]}")
    url = secured.replace("localhost", "public.example").replace("https://", f"https://user:{CANARY}@")
    said, _ = attempt(url)
    assert "not trusted" in said, "a proxy changes nothing about whom to trust"
    hosts.trust.cache_clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    said, root = attempt(url)
    assert said == "" and (root / "raw/small/x.csv").read_bytes() == BODY
    asked = proxy.asked[-1]
    assert asked[0].startswith("CONNECT public.example:")
    assert any(line.lower().startswith("proxy-authorization: basic ") for line in asked)
    assert not any(line.lower().startswith("authorization") for line in asked), (
        "that is for the host, within the tunnel"
    )
    proxy.refuses = True
    said, _ = attempt(url, name="y.csv")
    assert "the proxy for public.example refuses" in said and CANARY not in said


def test_a_redirect_out_of_tls_is_refused(
    secured: str, attempt: Make, certificate: Path, encrypted: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    MODES["plain"] = lambda ask: ask.head(302, Location="http://public.example/x.csv", Content_Length=0)
    try:
        said, _ = attempt(secured.replace("/good/0/", "/plain/always/"), allow_private=True)
    finally:
        del MODES["plain"]
    assert "gives up encryption" in said and len(encrypted.requests) == 1


def test_the_hub_is_asked_with_the_same_care(
    certificate: Path, trust: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Hub("cvssp/WavCaps", small_wavcaps())
    monkeypatch.setenv("HF_ENDPOINT", f"https://localhost:{encrypt(server, certificate)}")
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    again = []
    monkeypatch.setattr(hub_client.time, "sleep", again.append)
    hub_client.guard.cache_clear()
    with pytest.raises(Failed, match=r"localhost:\d+ shows a certificate that is not trusted .*SSL_CERT_FILE"):
        plan_hub("wavcaps", ("soundbible",), str(tmp_path))
    assert again == [], "nobody mends a certificate while we wait"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    hosts.trust.cache_clear()
    hub_client.guard.cache_clear()
    try:
        assert len(fetch_hub(plan_hub("wavcaps", ("soundbible",), str(tmp_path)), str(tmp_path))) == 3
    finally:
        hub_client.guard.cache_clear()
        server.shutdown()
