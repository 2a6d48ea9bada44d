"""Whose request it is: the peer's address, or what trusted proxies say about it."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network

MAX_HOPS = 16  # More proxies than anybody has: a longer list is a client's, and only costs time.


def client_address(peer_ip: str, forwarded_for: str | None, trusted: Sequence[Network]) -> str:
    """The rightmost untrusted address of `X-Forwarded-For` behind a trusted peer, else the peer's; "" for no address.

    Garbage in the header ends the walk: what stands left of it was not written by a proxy we trust.
    """
    if not trusted and ":" not in peer_ip:
        return peer_ip
    address = _parse(peer_ip)
    if address is None:
        return ""
    if forwarded_for and _is_trusted(address, trusted):
        address = _walk(address, forwarded_for, trusted)
    return str(address)


def is_https(has_tls: bool, peer_ip: str, forwarded_proto: str | None, trusted: Sequence[Network]) -> bool:
    """Whether the client speaks https: to us, or, says a trusted peer, to the first proxy."""
    if has_tls or not trusted or not forwarded_proto:
        return has_tls
    peer = _parse(peer_ip)
    return (
        peer is not None and forwarded_proto.partition(",")[0].strip().lower() == "https" and _is_trusted(peer, trusted)
    )


def _walk(peer: IPv4Address | IPv6Address, forwarded_for: str, trusted: Sequence[Network]) -> IPv4Address | IPv6Address:
    nearest = peer
    for part in reversed(forwarded_for.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
        hop = _parse(part.strip())
        if hop is None:
            return nearest
        nearest = hop
        if not _is_trusted(hop, trusted):
            break
    return nearest


def _is_trusted(address: IPv4Address | IPv6Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """The address in `text`, without port, brackets and zone; a mapped IPv4 address as what it is."""
    try:
        address = ip_address(_without_port(text).partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _without_port(text: str) -> str:
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        return host if bracket and (not port or _is_port(port[1:], port[0])) else ""
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host if _is_port(port, ":") else ""
    return text


def _is_port(digits: str, separator: str) -> bool:
    return separator == ":" and digits.isascii() and digits.isdigit() and len(digits) <= 5
