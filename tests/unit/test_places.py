"""edge/http/places.py: so many connections in all, and so many of one client."""

from ipaddress import ip_network

import pytest

from edge.http.places import Place, Places

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def entered(places: Places, address: str) -> Place:
    """A connection from there."""
    place = Place(places)
    place.name(address)
    return place


def test_a_client_has_so_many_and_the_others_have_theirs() -> None:
    """Who has too many is refused until one of them is gone; the count of who is gone is forgotten."""
    places = Places(100, 2)
    first, second, third = [entered(places, "203.0.113.9") for _ in range(3)]
    assert [first.is_granted, second.is_granted, third.is_granted] == [True, True, False]
    assert entered(places, "203.0.113.10").is_granted
    for place in (third, first):
        place.leave()
    assert entered(places, "203.0.113.9").is_granted
    assert len(places) == 3


def test_without_a_number_one_client_leaves_a_quarter_to_others() -> None:
    """The default; a single place can be had all the same."""
    places = Places(100)
    assert sum(entered(places, "203.0.113.9").is_granted for _ in range(90)) == 75
    assert entered(places, "203.0.113.10").is_granted
    assert entered(Places(1), "203.0.113.9").is_granted


def test_all_together_have_so_many() -> None:
    """Each from another address; a connection that has not said whose it is takes a place too."""
    places = Places(10, 5)
    assert sum(entered(places, f"203.0.113.{number}").is_granted for number in range(9)) == 9
    assert Place(places).is_granted
    assert not Place(places).is_granted


@pytest.mark.parametrize(
    ("address", "same", "other"),
    [
        ("203.0.113.9", "::ffff:203.0.113.9", "203.0.113.8"),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"),
        ("fe80::1%eth0", "fe80::2", "fe80:0:0:1::1"),
    ],
)
def test_a_client_is_an_address_or_a_64(address: str, same: str, other: str) -> None:
    """An IPv6 user has 2^64 addresses; a mapped IPv4 address is what it maps."""
    for trusted in ((), TRUSTED):
        places = Places(100, 1, trusted)
        assert entered(places, address).is_granted
        assert not entered(places, same).is_granted
        assert entered(places, other).is_granted


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "", "no address"])
def test_a_trusted_proxy_and_nobody_have_no_number(address: str) -> None:
    """They speak for many, or for none."""
    places = Places(100, 1, TRUSTED)
    assert all(entered(places, address).is_granted for _ in range(100))
    assert not places._by_client


def test_nothing_is_left_of_connections_that_are_gone() -> None:
    """Ten thousand clients come and go: no memory of them stays."""
    places = Places(100, 2)
    for number in range(10_000):
        entered(places, f"10.0.{number >> 8}.{number & 255}").leave()
    assert (len(places), places._by_client) == (0, {})
