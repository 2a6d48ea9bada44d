"""Which addresses a postback may be sent to: asked for the very address that is about to be connected to.

A partner's host is resolved like any other, and what comes out is checked where the socket is made. So it does not
matter how an address was written, nor what the same name resolves to a moment earlier or later.
"""

import errno
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp.connector import AddrInfoType

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

LOWEST_FREE_PORT = 1024
WEB_PORTS = (80, 443)

# The registries' special-purpose blocks, whatever this Python's `is_global` knows of them.
_REFUSED = [
    ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
        "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
    )
]  # fmt: skip
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_MAPPED = IPv6Network("::ffff:0:0/96")
_TRANSLATED = IPv6Network("64:ff9b::/96")


class AddressRefused(OSError):
    """A postback's host leads to an address that it must not reach."""


def is_public(address: Address) -> bool:
    """Whether anybody on the internet may be behind it: no address of this machine, its network, or of many at once."""
    if isinstance(address, IPv6Address):
        if address in _MAPPED or address in _TRANSLATED:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not any(address in network for network in _REFUSED if network.version == address.version)


def fault_in_place(host: str, port: int, allowed: Sequence[Network]) -> str:
    """Why no connection is made to that address and port; "" if one may be."""
    try:
        address = ip_address(host)
    except ValueError:
        return f"{host!r} is no address"
    if port not in WEB_PORTS and port < LOWEST_FREE_PORT:
        return f"port {port} is not 80, 443 or above 1023"
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    plain = mapped or address
    if is_public(address) or any(plain in network for network in allowed if network.version == plain.version):
        return ""
    return f"{address} is no public address (EDGE_POSTBACK_ALLOW)"


def guarded_socket(allowed: Sequence[Network]) -> Callable[[AddrInfoType], socket.socket]:
    """Makes the client's sockets; AddressRefused instead of one for a place that is out of bounds."""

    def make(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, place = info
        if family not in (socket.AF_INET, socket.AF_INET6):
            raise AddressRefused(errno.EACCES, "refused: neither IPv4 nor IPv6")
        fault = fault_in_place(str(place[0]), int(place[1]), allowed)
        if fault:
            raise AddressRefused(errno.EACCES, f"refused: {fault}")
        return socket.socket(family, kind, protocol)

    return make
