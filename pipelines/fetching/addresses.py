"""Addresses: which machines may be fetched from, in whatever notation a name or an address hides them."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from typing import Any

METADATA = tuple(map(ipaddress.ip_address, ("169.254.169.254", "100.100.100.200", "fd00:ec2::254")))
"""Where clouds hand credentials to whoever asks: never fetched, not even where private addresses are allowed."""
NAMES = ("metadata.google.internal", "metadata", "instance-data", "instance-data.ec2.internal")
"""The same by name, for a proxy that looks names up itself."""
HIDING = tuple(map(ipaddress.ip_network, ("::/8", "64:ff9b::/32")))
"""IPv6 addresses that end in an IPv4 address, where a gateway or the system would take us."""


def judge(address: str, allow_private: bool) -> str:
    """Say why the IP `address` must not be fetched; empty if it may be."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # One address can hide another.
        inner: Any = ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if any(ip in network for network in HIDING) and not (ip.is_loopback or ip.is_unspecified):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return judge(str(inner), allow_private)
    if ip in METADATA or ip.is_link_local:
        return "a link-local or metadata address"
    if ip.is_multicast or ip.is_unspecified:
        return "no address of one machine"
    odd = isinstance(ip, ipaddress.IPv6Address) and (ip.is_reserved or ip.is_site_local)
    return "" if (ip.is_global and not odd) or allow_private else "a private address, which --allow-private permits"


def resolve(host: str, port: int) -> list[str]:
    """Return the IP addresses of `host`."""
    return list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


def literal(host: str) -> list[str]:
    """Return the address that a host name spells, in any notation that a resolver understands; none for a name."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith((".localhost", "localhost.localdomain")) or host.startswith("ip6-"):
        return ["127.0.0.1"]
    if host in NAMES:
        return [str(METADATA[0])]
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(host.split("%")[0]))]
    with contextlib.suppress(OSError):
        return [socket.inet_ntoa(socket.inet_aton(host))]
    return []
