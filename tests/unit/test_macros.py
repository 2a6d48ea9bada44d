"""URL templates: what stands in a Location."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.tracking.macros import canonical, compile_template, find_unknown_macros
from edge.tracking.urls import encode_url, encode_value, fault_in_url, host_of

_UNRESERVED = set(string.ascii_letters + string.digits + "-._~")


def test_macros_are_filled_in_where_they_stand() -> None:
    """Literals stay byte for byte, values go where their macro is."""
    template = compile_template("https://shop.example.com/{aff_id}/l?clickid={transaction_id}&s={aff_sub}#x")
    values = {"transaction_id": "0192f3", "aff_id": "2", "aff_sub1": "spring sale"}
    assert template.expand(values) == "https://shop.example.com/2/l?clickid=0192f3&s=spring%20sale#x"
    assert {name for _, name in template.slots} == {"transaction_id", "aff_id", "aff_sub1"}


def test_values_may_come_from_a_function() -> None:
    """A caller may compute values on demand; None means nothing."""
    assert compile_template("http://a.example/{source}{city}").expand({"source": "s"}.get) == "http://a.example/s"


def test_an_unknown_or_missing_macro_expands_to_nothing() -> None:
    """No braces reach a browser because of a typing error, and nothing fails."""
    template = compile_template("http://a.example/?a={clikid}&b={token:hash}&c={source}")
    assert template.expand({"clikid": "x"}) == "http://a.example/?a=&b=&c="
    assert {name for _, name in template.slots} == {"source"}
    assert find_unknown_macros("http://a.example/?a={clikid}&c={source}") == ["clikid"]


def test_the_transaction_id_is_never_added() -> None:
    """A URL without `{transaction_id}` is sent as it is written."""
    assert compile_template("http://a.example/x?y=1").expand({"transaction_id": "t"}) == "http://a.example/x?y=1"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("affiliate_id", "aff_id"),
        ("aff_sub", "aff_sub1"),
        ("adv_sub", "adv_sub1"),
        ("offer_url_id", "url_id"),
        ("offer_file_id", "file_id"),
        ("sale_amount", "amount"),
        ("session_ip", "session_ip"),
        ("ip", "ip"),
        ("ran", "ran"),
        ("nonsense", ""),
        ("AFF_ID", ""),
    ],
)
def test_aliases_resolve_to_one_name(name: str, expected: str) -> None:
    """TUNE's several names for a value are one to the caller."""
    assert canonical(name) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a-b._~Z9", "a-b._~Z9"),
        ("a b", "a%20b"),
        ("a&b=c%", "a%26b%3Dc%25"),
        ("ü€", "%C3%BC%E2%82%AC"),
        ("\r\nSet-Cookie: a=b", "%0D%0ASet-Cookie%3A%20a%3Db"),
        ("\x00\x7f", "%00%7F"),
        ("٣", "%D9%A3"),
        ("x\ud800y", "x%3Fy"),
    ],
)
def test_values_are_percent_encoded(value: str, expected: str) -> None:
    """RFC 3986 unreserved bytes stay, every other UTF-8 byte is %XX in upper case, a lone surrogate is replaced."""
    assert encode_value(value) == expected


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ("http://a.example/p?x[]=1&y='(2)'", "http://a.example/p?x[]=1&y='(2)'"),
        ("http://a.example/ü", "http://a.example/%C3%BC"),
        ("http://a.example/%41%zz%", "http://a.example/%41%25zz%25"),
        ('http://a.example/{"a":1}', "http://a.example/%7B%22a%22:1%7D"),
        ("http://a.example/a\\b|c", "http://a.example/a%5Cb%7Cc"),
    ],
)
def test_literals_outside_rfc_3986_are_encoded_once(literal: str, expected: str) -> None:
    """What is legal or encoded already stays; the rest becomes %XX."""
    assert compile_template(literal).expand({}) == expected
    assert encode_url(expected) == expected


def test_a_value_cannot_complete_a_percent_escape() -> None:
    """A `%` in front of a macro is encoded, so that a value cannot turn it into a control byte."""
    assert compile_template("http://a.example/%{source}").expand({"source": "0A"}) == "http://a.example/%250A"


def test_params_keeps_its_separators() -> None:
    """`{params}` is a query string: its `&` and `=` stay, control bytes do not."""
    assert compile_template("http://a.example/?{params}").expand({"params": "a=1&b=2\n"}) == (
        "http://a.example/?a=1&b=2%0A"
    )


@settings(max_examples=300, deadline=None)
@given(st.text(), st.text())
def test_whatever_comes_in_the_result_is_printable_ascii(literal: str, value: str) -> None:
    """No control byte, space or non-ASCII character can reach a Location, and the host stays the literal one."""
    url = compile_template("https://shop.example.com/" + literal + "{source}?{params}").expand(
        {"source": value, "params": value}
    )
    assert url.isascii()
    assert url.isprintable()
    assert " " not in url
    assert host_of(url) == "shop.example.com"
    assert set(encode_value(value)) <= _UNRESERVED | {"%"}


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Shop.Example.com:8443/a?b", "shop.example.com"),
        ("http://[2001:db8::1]/", "[2001:db8::1]"),
        ("http://a.example", "a.example"),
        ("http://a.example?x=http://b.example", "a.example"),
        ("https://shop.example.com\\@evil.example/", ""),
        ("https://user@evil.example/", ""),
        ("https://{source}.example.com/", ""),
        ("https://shop.example.com{source}/", ""),
        ("javascript:alert(1)", ""),
        ("ftp://a.example/", ""),
        ("//a.example/", ""),
        ("http:///path", ""),
        ("http://a.example:99999/", ""),
        ("http://münchen.example/", ""),
        ("http://a.example/ b", ""),
        ("http://a.example/\n", ""),
        ("", ""),
    ],
)
def test_a_host_is_named_only_when_it_is_certain(url: str, host: str) -> None:
    """Everything a browser might read differently has no host and a fault with words."""
    assert host_of(url) == host
    assert bool(fault_in_url(url)) == (host == "")
