"""edge/http/raw_head.py and proxy_protocol.py: what stands before and in a request's head."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.http.proxy_protocol import SIGNATURE, read_proxy_header
from edge.http.raw_head import RawHead

HEAD = (
    b"GET /aff_c?a=b HTTP/1.1\r\nHost: edge.example\r\nUSER-agent:\t Mozilla/5.0 \r\nX-Forwarded-For: 1.1.1.1\r\n"
    b"x-forwarded-for: 2.2.2.2\r\nReferer: https://blog.example/\xc3\xbc\r\nEmpty:\r\n\r\n"
)


def test_a_header_is_found_whatever_the_case_of_its_name() -> None:
    """The first of its name, without the space around it; the default where there is none."""
    head = RawHead(HEAD)
    assert head.get("User-Agent", "") == "Mozilla/5.0"
    assert head.get("Referer", "") == "https://blog.example/ü"
    assert head.get("X-Forwarded-For", "") == "1.1.1.1"
    assert head.get_all("X-Forwarded-For") == "1.1.1.1,2.2.2.2"
    assert (head.get("Empty", "x"), head.get("Agent", "none"), head.get_all("Agent")) == ("", "none", "")


@pytest.mark.parametrize(
    ("line", "is_plain"),
    [
        (b"Accept: */*", True),
        (b"X: cookie: a", True),
        (b"cOOkie: a=b", False),
        (b"Sec-GPC: 1", False),
        (b"Purpose: prefetch", False),
        (b"Sec-Purpose: prefetch", False),
        (b"X-Moz: prefetch", False),
    ],
)
def test_a_plain_head_has_no_header_that_changes_a_click(line: bytes, is_plain: bool) -> None:
    """Said only when it is certain."""
    assert RawHead(b"GET / HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n").is_plain == is_plain


@pytest.mark.parametrize(("hosts", "is_one"), [(0, False), (1, True), (2, False)])
def test_a_request_has_one_host(hosts: int, is_one: bool) -> None:
    """None or two are refused."""
    assert RawHead(b"GET / HTTP/1.1\r\n" + b"Host: x\r\n" * hosts + b"\r\n").has_one_host == is_one


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
