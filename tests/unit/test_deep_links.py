"""edge/tracking/deep_links.py: `url=` leads to a host that the offer names, or nowhere."""

import re
from urllib.parse import urlsplit

import pytest
import yarl
from hypothesis import example, given
from hypothesis import strategies as st

from edge.tracking.deep_links import find_location
from edge.tracking.parameters import parse_query

DOMAINS = ("shop.example.com", "example.net", "xn--bcher-kva.example")
IS_SENDABLE = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+").fullmatch


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("https://shop.example.com/", None),
        ("https://shop.example.com", None),
        ("http://shop.example.com/a?b=c&d=e#f", None),
        ("HTTPS://Shop.Example.COM/A", None),
        ("https://www.shop.example.com/", None),
        ("https://a.b.example.net/", None),
        ("https://shop.example.com:8443/x", None),
        ("https://xn--bcher-kva.example/", None),
        ("https://shop.example.com/a?to=https://evil.example/@x", None),
        ("https://shop.example.com?q=@evil.example", None),
        ("https://shop.example.com#@evil.example", None),
        ("https://shop.example.com/a%20b?c=%C3%BC", None),
        ("https://shop.example.com/red shoes?q=a b", "https://shop.example.com/red%20shoes?q=a%20b"),
        ("https://shop.example.com/ü?q=€", "https://shop.example.com/%C3%BC?q=%E2%82%AC"),
        ('https://shop.example.com/"<x>`|^', "https://shop.example.com/%22%3Cx%3E%60%7C%5E"),
        ("https://shop.example.com/100%", "https://shop.example.com/100%25"),
        ("https://shop.example.com/a\\b", "https://shop.example.com/a%5Cb"),
        ("https://shop.example.com/?c={transaction_id}", "https://shop.example.com/?c=%7Btransaction_id%7D"),
    ],
)
def test_a_link_to_an_allowed_host_is_followed_as_decoded(url: str, location: str | None) -> None:
    """The host or one below it; bytes outside RFC 3986 become %XX, what is encoded stays."""
    assert find_location(url, DOMAINS) == (location or url)


REFUSED = [
    "",
    "/",
    "/landing",
    "shop.example.com",
    "shop.example.com/x",
    "//shop.example.com/",
    "///shop.example.com/",
    "https:/shop.example.com/",
    "https:shop.example.com/",
    "https:///shop.example.com/",
    "https:\\\\shop.example.com/",
    "https://",
    "https://?shop.example.com",
    "https://evil.example/",
    "https://evil.example/shop.example.com",
    "https://evil.example?shop.example.com",
    "https://evil.example#.shop.example.com",
    "https://evilshop.example.com/",
    "https://example.com/",
    "https://shop.example.com.evil.example/",
    "https://shop.example.comevil.example/",
    "https://shop-example.com/",
    "https://shop.example.com@evil.example/",
    "https://shop.example.com:443@evil.example/",
    "https://user@shop.example.com/",
    "https://user:pass@shop.example.com/",
    "https://@shop.example.com/",
    "https://evil.example\\@shop.example.com/",
    "https://evil.example\\.shop.example.com/",
    "https://shop.example.com\\@evil.example/",
    "https://shop.example.com\\.evil.example/",
    "https:/\\evil.example/.shop.example.com",
    "https://shop.example.com./",
    "https://shop.example.com%2eevil.example/",
    "https://shop%2eexample.com/",
    "https://shop.example.com%00.evil.example/",
    "https://shop.example.com%2Fevil.example/",
    "https://evil.example%2F.shop.example.com/",
    "https://evil.example%23.shop.example.com/",
    "https://shop\u3002example\u3002com/",
    "https://evil.example\uff0f.shop.example.com/",
    "https://evil.example\uff1f.shop.example.com/",
    "https://\uff53hop.example.com/",
    "https://shop.example.c\u043em/",
    "https://bücher.example/",
    "https://shop.example.com:0/",
    "https://shop.example.com:99999/",
    "https://shop.example.com:/",
    "https://shop.example.com:80:80/",
    "https://shop.example.com :80/",
    " https://shop.example.com/",
    "https ://shop.example.com/",
    "https:// shop.example.com/",
    "https://[::1]/",
    "https://[shop.example.com]/",
    "https%3A%2F%2Fshop.example.com%2F",
    "javascript:alert(1)//shop.example.com",
    "javascript://shop.example.com/%0aalert(1)",
    "data:text/html,https://shop.example.com/",
    "ftp://shop.example.com/",
    "wss://shop.example.com/",
    "view-source:https://shop.example.com/",
    "https://{source}.shop.example.com/",
    "https://shop.example.com/" + "x" * 8192,
    "https://shop.example.com/" + '"' * 3000,
]


@pytest.mark.parametrize("url", REFUSED)
@pytest.mark.reliability(number=25)
def test_a_link_that_is_not_certain_is_refused(url: str) -> None:
    """User parts, backslashes, encoded dots, other alphabets, other schemes, ports that are none, endless paths."""
    assert find_location(url, DOMAINS) == ""


@pytest.mark.parametrize(
    "query",
    [
        "url=https%253A%252F%252Fshop.example.com%252F",
        "url=ht%09tps://evil.example/%0d%0a.shop.example.com",
        "url=https://evil.example%09.shop.example.com%5C@x",
        "url=https://shop.example.com%0a.evil.example/",
        "url=https://shop.example.com%09@evil.example/",
        "url=https://%00evil.example/",
        "url=https://evil.example%E2%80%A8.shop.example.com%40x.evil.example",
        "url=%ff%fe://shop.example.com/",
    ],
)
def test_what_is_read_away_hides_no_host(query: str) -> None:
    """Control characters go before anything is looked at, and what is sent is what was looked at."""
    location = find_location(parse_query(query)["url"], DOMAINS)
    assert location == "" or is_allowed(location)
    assert "evil.example/" not in location


@pytest.mark.reliability(number=25)
def test_without_domains_nothing_is_followed() -> None:
    """The default."""
    assert find_location("https://shop.example.com/", ()) == ""


def is_allowed(location: str) -> bool:
    """As two other parsers read it."""
    hosts = (urlsplit(location).hostname or "", yarl.URL(location, encoded=True).host or "")
    return all(any(f".{host}".endswith(f".{domain}") for domain in DOMAINS) for host in hosts)


PIECES = st.sampled_from(
    ["https://", "http://", "https:", "//", "/", "\\", "@", ":", ".", "%2e", "%40", "%5c", "\u3002", "\uff0f", "?", "#", "[", "]", "443",
     "shop.example.com", "example.net", "evil.example", "xn--", "\uff53", "ü", " ", "%", "%0a", "user", "{", "&", ";", "'", '"']
)  # fmt: skip


@given(st.one_of(st.lists(PIECES, max_size=8).map("".join), st.text(max_size=40).map("https://shop.example.com".__add__)))
@example("https://shop.example.com\\@evil.example")
@pytest.mark.reliability(number=25)
def test_no_link_leads_off_the_list(url: str) -> None:
    """Whatever is put together: other parsers find an allowed host in what is sent, and nothing that a header must not hold."""
    location = find_location(url, DOMAINS)
    if location:
        assert is_allowed(location)
        assert IS_SENDABLE(location)
        assert location.lower().startswith(("https://", "http://"))


EVIL = ["evil.example", "shop.example.com.evil.example", "evilshop.example.com.", "127.0.0.1", "[::1]", "0x7f000001", "xn--e1awd7f.com"]
WAYS = [
    "//{0}/", "///{0}/", "////{0}/", "/\\{0}/", "\\\\{0}/", "\\/{0}/", "https:{0}", "https:/{0}/", "https:///{0}/", "https:\\\\{0}/",
    "https://{0}/", "http://{0}:80/", "HTTPS://{0}/", "https://shop.example.com@{0}/", "https://shop.example.com:pw@{0}/",
    "https://{0}\\@shop.example.com/", "https://{0}#@shop.example.com/", "https://{0}?@shop.example.com/",
    "https://{0}/\\shop.example.com", "https://{0}%2f.shop.example.com/", "https://{0}%00.shop.example.com/",
    "https://{0}\t.shop.example.com/", "https://\t{0}/", "ht\ttps://{0}/", "https://{0}\r\n.shop.example.com/", " https://{0}/",
    "https://{0} .shop.example.com/", "https://{0}\u3002shop.example.com/", "https://{0}\uff0fshop.example.com/",
    "https://{0};shop.example.com/", "https://{0},shop.example.com/", "https://{0}&shop.example.com/",
    "javascript:location='https://{0}'", "javascript://shop.example.com/%0alocation='{0}'", "data:text/html,<a href=//{0}>",
]  # fmt: skip


@pytest.mark.reliability(number=25)
def test_two_hundred_ways_off_the_list_lead_nowhere() -> None:
    """Slashes, backslashes, users, tabs, dots, other schemes, each to seven hosts: none is followed off the list, and none by an empty one."""
    urls = [way.format(host) for way in WAYS for host in EVIL]
    assert len(set(urls)) >= 200
    for url in urls:
        location = find_location(url, DOMAINS)
        assert location == "" or is_allowed(location), url
        assert find_location(url, ()) == ""
