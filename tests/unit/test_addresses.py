"""Address rules: one address, ranges, blocks, both IP versions; garbage never matches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.tracking.addresses import is_allowed, parse_rule


@pytest.mark.parametrize(
    ("rule", "inside", "outside"),
    [
        ("192.0.2.7", ["192.0.2.7", "::ffff:192.0.2.7"], ["192.0.2.8", "::7"]),
        ("192.0.2.10-192.0.3.5", ["192.0.2.10", "192.0.2.255", "192.0.3.5"], ["192.0.2.9", "192.0.3.6"]),
        ("192.0.2.0-255", ["192.0.2.0", "192.0.2.255"], ["192.0.1.255", "192.0.3.0"]),
        ("192.0.2.5 - 9", ["192.0.2.5", "192.0.2.9"], ["192.0.2.4", "192.0.2.10"]),
        ("203.0.113.9/24", ["203.0.113.0", "203.0.113.255"], ["203.0.112.255", "203.0.114.0"]),
        ("0.0.0.0/0", ["1.2.3.4", "::ffff:1.2.3.4"], ["2001:db8::1"]),
        ("2001:db8::/32", ["2001:db8::1", "2001:DB8:ffff::"], ["2001:db9::", "192.0.2.1"]),
        ("2001:db8::1-2001:db8::ff", ["2001:db8::1", "2001:db8::ff"], ["2001:db8::", "2001:db8::100"]),
        ("::ffff:192.0.2.0/120", ["192.0.2.200", "::ffff:192.0.2.1"], ["192.0.3.1"]),
        ("::/0", ["::1", "2001:db8::1"], ["192.0.2.1"]),
    ],
)
def test_a_rule_holds_exactly_its_addresses(rule: str, inside: list[str], outside: list[str]) -> None:
    """Both ends count; an IPv4-mapped address is its IPv4 address."""
    assert all(is_allowed(ip, (rule,)) for ip in inside)
    assert not any(is_allowed(ip, (rule,)) for ip in outside)


@pytest.mark.parametrize(
    "rule", ["", "-", "a-b", "192.0.2.300", "192.0.2.9-3", "192.0.2.1-2001:db8::1", "1.2.3.4/33", "2001:db8::1-5x", "/"]
)
def test_garbage_is_no_rule(rule: str) -> None:
    """Neither parsed nor matched; the good rule beside it still counts."""
    assert parse_rule(rule) is None
    assert not is_allowed("192.0.2.5", (rule,))
    assert is_allowed("192.0.2.5", (rule, "192.0.2.5"))


def test_no_rule_allows_nothing_and_no_address_is_allowed() -> None:
    """An empty list is for the caller to treat as "no check"."""
    assert not is_allowed("192.0.2.5", ())
    for ip in ("", "unknown", "192.0.2", "192.0.2.5:80", "٣.0.2.5"):
        assert not is_allowed(ip, ("0.0.0.0/0", "::/0"))


@given(st.text(max_size=40), st.text(max_size=40))
def test_matching_never_raises(ip: str, rule: str) -> None:
    """Whatever stands in either place."""
    assert is_allowed(ip, (rule,)) in (True, False)
