"""edge/http/proxy_protocol.py: what a balancer says before the first request."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.http.proxy_protocol import SIGNATURE, came_over_tls, read_proxy_header

SSL = b"\x20\x00\x05\x01\x00\x00\x00\x00"


def proxied(address: str, *, command: int = 0x21, extra: bytes = b"") -> bytes:
    """A balancer's header for a connection from `address`."""
    is_v4 = ":" not in address
    kind = socket.AF_INET if is_v4 else socket.AF_INET6
    block = socket.inet_pton(kind, address) * 2 + b"\x1f\x90\x00\x50" + extra
    return SIGNATURE + bytes([command, 0x11 if is_v4 else 0x21]) + len(block).to_bytes(2, "big") + block


@pytest.mark.parametrize("address", ["203.0.113.9", "2001:db8::1"])
@pytest.mark.parametrize("extra", [b"", b"\x04\x00\x03abc"])
def test_a_balancers_header_says_whose_connection_it_is(address: str, extra: bytes) -> None:
    """At every cut the rest is awaited; what follows is not touched."""
    header = proxied(address, extra=extra)
    assert read_proxy_header(header + b"GET /") == (address, len(header))
    assert [read_proxy_header(header[:cut]) for cut in range(len(header))] == [None] * len(header)


@pytest.mark.parametrize("address", ["203.0.113.9", "2001:db8::1"])
@pytest.mark.parametrize(
    ("extra", "is_tls"),
    [
        (b"", False),
        (SSL, True),
        (b"\x04\x00\x03abc" + SSL + b"\x03\x00\x04abcd", True),
        (b"\x20\x00\x05\x00\x00\x00\x00\x00", False),
        (b"\x20\x00\x00", False),
        (b"\x04\x00\x08" + SSL, False),
        (b"\x04\xff\xff\x20", False),
    ],
)
def test_a_balancer_says_whether_its_client_spoke_tls(address: str, extra: bytes, is_tls: bool) -> None:
    """Wherever among what else it says; where it says nothing, or what is cut off, there was none."""
    assert came_over_tls(proxied(address, extra=extra)) == is_tls


def test_a_balancers_own_connection_has_no_other_address() -> None:
    """Its health checks: the peer is who it is."""
    header = proxied("203.0.113.9", command=0x20)
    assert read_proxy_header(header) == ("", len(header))


@given(st.binary(max_size=64))
def test_anything_else_is_no_header(data: bytes) -> None:
    """A ValueError, or a wait for more; never an address."""
    try:
        found = read_proxy_header(data)
    except ValueError:
        return
    assert found is None or data.startswith(SIGNATURE)


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
        SIGNATURE + b"\x21\x11\xff\xff" + bytes(12),
    ],
)
def test_a_wrong_header_is_refused(header: bytes) -> None:
    """Another protocol, version 1, another version, too short for its addresses, too long to bear."""
    with pytest.raises(ValueError, match="PROXY"):
        read_proxy_header(header)
