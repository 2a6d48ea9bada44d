"""edge/http/client_address.py: whose request it is, however the header is forged or mangled."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.http.client_address import client_address, is_https

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.2.3.4 ,10.9.9.9", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.7, 10.0.0.8", "10.0.0.7"),
        ("10.0.0.1", "198.51.100.1, unknown, 10.0.0.8", "10.0.0.8"),
        ("10.0.0.1", "198.51.100.1,", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2a00::7]:443", "2a00::7"),
        ("10.0.0.1", "[2a00::7]", "2a00::7"),
        ("10.0.0.1", "2a00::7", "2a00::7"),
        ("10.0.0.1", "fe80::1%eth0", "fe80::1"),
        ("10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("2001:db8::1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1:port", "10.0.0.1"),
        ("10.0.0.1", "[2a00::7]x", "10.0.0.1"),
        ("10.0.0.1", "[2a00::7", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1:", "10.0.0.1"),
        ("", "198.51.100.1", ""),
    ],
)
def test_the_rightmost_untrusted_address_is_the_clients(peer: str, forwarded_for: str | None, expected: str) -> None:
    """Only what a trusted proxy appended is believed; garbage ends the walk."""
    assert client_address(peer, forwarded_for, TRUSTED) == expected


@pytest.mark.parametrize(
    ("peer", "expected"),
    [("198.51.100.1", "198.51.100.1"), ("::ffff:198.51.100.1", "198.51.100.1"), ("fe80::1%eth0", "fe80::1")],
)
def test_without_trusted_proxies_the_peer_is_the_client(peer: str, expected: str) -> None:
    """Nobody's header is believed by default."""
    assert client_address(peer, "1.1.1.1", ()) == expected


def test_an_endless_list_of_trusted_hops_is_cut() -> None:
    """A client cannot buy work with a long header: the walk ends after a bounded number of hops."""
    assert client_address("10.0.0.1", "8.8.8.8," + ",".join(["10.0.0.2"] * 3000), TRUSTED) == "10.0.0.2"


@given(st.text(max_size=200))
def test_no_header_makes_it_fail(forwarded_for: str) -> None:
    """Whatever the header holds, the answer is an address."""
    assert client_address("10.0.0.1", forwarded_for, TRUSTED)


@pytest.mark.parametrize(
    ("has_tls", "peer", "proto", "expected"),
    [
        (True, "203.0.113.9", None, True),
        (False, "203.0.113.9", "https", False),
        (False, "10.0.0.1", "https", True),
        (False, "10.0.0.1", "HTTPS , http", True),
        (False, "10.0.0.1", "http", False),
        (False, "10.0.0.1", None, False),
        (True, "10.0.0.1", "http", True),
        (False, "", "https", False),
    ],
)
def test_https_is_our_own_or_a_trusted_proxys_word(has_tls: bool, peer: str, proto: str | None, expected: bool) -> None:
    """A client cannot claim https for itself."""
    assert is_https(has_tls, peer, proto, TRUSTED) is expected
