"""Hosts: which addresses may be fetched, and connections that go to the address that was checked and to no other."""

from __future__ import annotations

import functools
import http.client
import os
import re
import socket
import ssl
import urllib.parse
import urllib.request
from typing import Any

import msgspec
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import Url, make_headers, parse_url

from manifests.errors import UserError
from manifests.files import redact
from pipelines.fetching.addresses import judge, literal, resolve
from pipelines.fetching.line import Line

HOPS = 10
"""Redirects that are followed."""
USUAL = {"http": 80, "https": 443}
"""Ports."""
REDIRECTS = (301, 302, 303, 307, 308)
AUTHORITIES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name certificates of authorities. SSL_CERT_DIR, a list of folders, OpenSSL reads itself."""
OWN = "if it is your own, let SSL_CERT_FILE name the certificate of its authority"
HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\]")
UNPRINTED = re.compile(r"[\x00-\x20\x7f\\]")


class Forbidden(Exception):
    """An address that must not be fetched; the message is a clause without secrets."""


class Unreachable(Exception):
    """An address that cannot be reached now; `reason` is a code, the message a clause without secrets."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """An address that may be fetched, and the peers to connect to: resolved once, so that no second answer counts."""

    scheme: str
    host: str
    port: int
    path: str
    """Path and query."""
    login: str
    """user:password of the address, for this host alone."""
    proxy: str
    """The proxy that the environment names for it, if any."""
    peers: tuple[tuple[str, int], ...]

    @property
    def url(self) -> str:
        """The address without its login."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        # Signed addresses are signed for a host without its usual port.
        port = "" if self.port == USUAL[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"


def host_of(url: str) -> str:
    """Return the host of `url`, empty if it has none."""
    try:
        return (parse_url(url).host or "").strip("[]")
    except urllib3.exceptions.LocationParseError:
        return ""


def proxy_for(scheme: str, host: str) -> str:
    """Return the address of the proxy that the environment names for a host, empty if none."""
    if urllib.request.proxy_bypass(host):
        return ""
    proxies = urllib.request.getproxies()
    found = proxies.get(scheme) or proxies.get("all") or ""
    return found if "://" in found or not found else f"http://{found}"


def parse(url: str) -> Url:
    """Parse `url`; Forbidden if it is no address of a web server."""
    if UNPRINTED.search(url):
        raise Forbidden(f"{shown(url)} holds a space, a backslash or what cannot be printed")
    try:
        parts = parse_url(url)
        if parts.scheme not in ("http", "https"):
            raise Forbidden(f"{shown(url)} is not http or https")
        if not parts.host:
            raise Forbidden(f"{shown(url)} names no host")
        if not HOST.fullmatch(parts.host) or parts.port == 0:
            raise Forbidden(f"{shown(url)} names no host and port that can be")
    except urllib3.exceptions.LocationParseError:
        raise Forbidden(f"{shown(url)} is no address") from None
    return parts


def shown(url: str) -> str:
    """Return an address fit for a sentence."""
    return (
        repr(redact(url)[:120]) if "://" in url else repr(re.split("[?#]", url, maxsplit=1)[0].rpartition("@")[2][:40])
    )


def check(url: str, allow_private: bool = False) -> Target:
    """Return what `url` stands for, resolved; Forbidden if it must not be fetched, Unreachable if it has no address."""
    parts = parse(url)
    scheme, host = parts.scheme or "", (parts.host or "").strip("[]")
    port = parts.port or USUAL[scheme]
    proxy = proxy_for(scheme, host)
    if proxy:
        # The proxy looks names up, and this machine may be unable to; what is plainly an address is judged here.
        addresses = literal(host)
        place = parse_url(proxy)
        if place.scheme not in ("http", "https"):
            raise Forbidden(f"the environment's proxy for {host} is {place.scheme}; it must be http or https")
        peers: tuple[tuple[str, int], ...] = (((place.host or "").strip("[]"), place.port or USUAL[place.scheme]),)
    else:
        try:
            addresses = resolve(host, port)
        except (OSError, UnicodeError):
            raise Unreachable("dns", f"the name {host} cannot be looked up") from None
        peers = tuple((address, port) for address in addresses)
    for address in addresses:
        if trouble := judge(address, allow_private):
            named = host if host == address else f"{host} ({address})"
            raise Forbidden(f"{named} is {trouble}")
    return Target(
        scheme=scheme,
        host=host,
        port=port,
        path=parts.request_uri,
        login=urllib.parse.unquote(parts.auth) if parts.auth else "",
        proxy=proxy,
        peers=peers,
    )


@functools.cache
def trust() -> ssl.SSLContext:
    """Return the context that checks certificates, by the authorities of the system and of the environment.

    UserError if a variable names what holds none.
    """
    made = ssl.create_default_context()
    for name in AUTHORITIES:
        if place := os.environ.get(name, ""):
            try:
                made.load_verify_locations(**{"capath" if os.path.isdir(place) else "cafile": place})
            except OSError:
                said = f"{name} is {place!r}, where no certificates can be read; mend it or unset it"
                raise UserError(said) from None
    return made


def untrusted(error: BaseException | None) -> str:
    """Return what is wrong with the certificate that an error is about, empty if that is not what it is about."""
    while error is not None:
        for one in (error, *error.args):
            if isinstance(one, ssl.SSLCertVerificationError):
                return f"shows a certificate that is not trusted ({one.verify_message}); {OWN}"
        error = error.__cause__ or error.__context__
    return ""


def manager(target: Target, line: Line, connect: float) -> urllib3.PoolManager:
    """Return a pool whose connections go to the peers of `target`, whatever a name resolves to by now."""

    def dial(connection: Any) -> socket.socket:
        try:
            return line.dial(target.peers, connect)
        except TimeoutError:
            raise urllib3.exceptions.ConnectTimeoutError(connection, "no answer") from None
        except OSError:
            raise urllib3.exceptions.NewConnectionError(connection, "no connection") from None

    made: urllib3.PoolManager
    if target.proxy:
        place = parse_url(target.proxy)
        login = make_headers(proxy_basic_auth=urllib.parse.unquote(place.auth)) if place.auth else None
        bare = f"{place.scheme}://{target.peers[0][0]}:{target.peers[0][1]}"
        made = urllib3.ProxyManager(bare, proxy_headers=login, ssl_context=trust(), retries=False)
    else:
        made = urllib3.PoolManager(ssl_context=trust(), retries=False)
    classes: dict[str, Any] = {}
    for scheme, pool, connection in (
        ("http", urllib3.HTTPConnectionPool, HTTPConnection),
        ("https", urllib3.HTTPSConnectionPool, HTTPSConnection),
    ):
        # _new_conn is where urllib3's own SOCKS support hooks in as well.
        checked = type("CheckedConnection", (connection,), {"_new_conn": dial})
        classes[scheme] = type("CheckedPool", (pool,), {"ConnectionCls": checked})
    made.pool_classes_by_scheme = classes
    return made


def open_url(
    url: str, headers: dict[str, str], line: Line, *, allow_private: bool, connect: float, stall: float
) -> tuple[urllib3.BaseHTTPResponse, Target]:
    """Ask for `url`, following redirects; return the response, its body unread, and where it came from.

    Every hop is checked as the first was; the login of `url` goes to its own host and no other. Raises Forbidden or
    Unreachable; `connect` and `stall` are seconds to wait for a connection and for the next byte.
    """
    target = check(url, allow_private)
    login = target.login
    for _ in range(HOPS + 1):
        sent = dict(headers)
        if login:
            sent |= make_headers(basic_auth=login)
        timeout = urllib3.Timeout(connect=connect, read=stall)
        pool = manager(target, line, connect)
        try:
            response = pool.request(
                "GET", target.url, headers=sent, redirect=False, preload_content=False, timeout=timeout
            )
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            raise Unreachable(*explain(error, target.host, line)) from None
        place = response.headers.get("Location")
        if response.status not in REDIRECTS or not place:
            return response, target
        response.close()
        # Servers send names in other encodings, and our own parser must be the only one to read them.
        following = check(urllib.parse.urljoin(target.url, place.strip().replace(" ", "%20")), allow_private)
        if target.scheme == "https" and following.scheme == "http":
            raise Forbidden(f"{target.host} redirects to {redact(following.url)}, which gives up encryption")
        if (following.host, following.port) != (target.host, target.port):
            login = ""
        target = following
    raise Forbidden(f"{redact(url)} redirects more than {HOPS} times")


def explain(error: BaseException, host: str, line: Line) -> tuple[str, str]:
    """Return a code and a clause for an error of the network, without the address that its own message holds."""
    kinds = urllib3.exceptions
    if why := untrusted(error):
        return "certificate", f"{host} {why}"
    if line.expired:
        return "slow", f"{host} was too slow"
    if isinstance(error, kinds.SSLError | ssl.SSLError):
        return "tls", f"{host} does not speak TLS as it should; is the address https, and is its port right?"
    if isinstance(error, kinds.ProxyError):
        return "proxy", f"the proxy for {host} refuses or cannot be reached"
    if isinstance(error, kinds.ConnectTimeoutError):
        return "connect", f"{host} does not answer"
    if isinstance(error, kinds.NewConnectionError | ConnectionRefusedError):
        return "connect", f"{host} refuses connections or cannot be reached"
    if isinstance(error, kinds.ReadTimeoutError | TimeoutError):
        return "stall", f"{host} sent nothing any more"
    if isinstance(error, kinds.IncompleteRead | http.client.IncompleteRead):
        return "short", f"{host} ended before the file did"
    return "reset", f"{host} broke the connection off"
