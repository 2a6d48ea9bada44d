"""Which addresses a rule allows: one address, a range (`a-b`, or short `192.0.2.0-255`) or a CIDR block."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple


class AddressRule(NamedTuple):
    """First and last address, both included, of one IP version."""

    version: int
    first: int
    last: int


@lru_cache(maxsize=4096)
def parse_rule(text: str) -> AddressRule | None:
    """The rule that `text` writes; None when it writes none. Host bits in a CIDR block are ignored."""
    try:
        first, last = _bounds(text.strip())
    except ValueError:
        return None
    first, last = _unmap(first), _unmap(last)
    if first.version != last.version or int(first) > int(last):
        return None
    return AddressRule(first.version, int(first), int(last))


def is_allowed(ip: str, allowed: Iterable[str]) -> bool:
    """Whether one of the rules holds `ip`; what is no address and what is no rule never match."""
    try:
        address = _unmap(ip_address(ip))
    except ValueError:
        return False
    return any(
        rule is not None and rule.version == address.version and rule.first <= int(address) <= rule.last
        for rule in map(parse_rule, allowed)
    )


def _bounds(text: str) -> tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address]:
    if "/" in text:
        network = ip_network(text, strict=False)
        return network.network_address, network.broadcast_address
    start, dash, end = (part.strip() for part in text.partition("-"))
    if dash and end.isdecimal() and "." in start:
        end = f"{start.rpartition('.')[0]}.{end}"
    first = ip_address(start)
    return first, ip_address(end) if dash else first


def _unmap(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address inside an IPv4-mapped IPv6 one, so that either form matches a rule in the other."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
