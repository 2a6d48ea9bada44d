"""edge/tracking/redirects.py: by status or by page; what is signed can be followed, and nothing else."""

import re
from base64 import urlsafe_b64encode
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.tracking.parameters import parse_query
from edge.tracking.redirects import BAD_HOP, Hops, handle_hop, send_to
from edge.tracking.request import Answer
from tests.wire.edge_state import NOW_MS, SECRET, build_state, request_of

DAY_MS = 86_400_000
TARGET = "https://shop.example.com/?a='b'&c=d;e&amp;f=%22#g"
HOPS = Hops((SECRET,))
REFRESH = re.compile(r'<meta http-equiv="refresh" content="0;url=([^"]*)">')
LINK = re.compile(r'<a href="([^"]*)">')


def target_of(answer: Answer) -> str:
    """Where a page leads: both its ways."""
    body = answer.body.decode("ascii")
    [refresh], [link] = REFRESH.findall(body), LINK.findall(body)
    assert refresh == link
    return unescape(refresh)


@pytest.mark.parametrize("status", [301, 302, 303, 307])
def test_a_status_redirects_by_location(status: int) -> None:
    """As the offer says."""
    assert send_to(TARGET, str(status), "c=1", HOPS, NOW_MS) == Answer(status, location=TARGET, cookie="c=1")


def test_one_page_leads_to_the_target_and_sends_no_referrer() -> None:
    """By refresh, and by a link where that is switched off; the cookie comes with it."""
    answer = send_to(TARGET, "single_meta_refresh", "c=1", HOPS, NOW_MS)
    assert (answer.status, answer.location, answer.cookie) == (200, "", "c=1")
    assert (answer.content_type, dict(answer.extra)["Referrer-Policy"]) == ("text/html; charset=utf-8", "no-referrer")
    assert target_of(answer) == TARGET
    assert b'<meta name="referrer" content="no-referrer">' in answer.body


def follow(link: str, now_ms: int = NOW_MS, hops: Hops = HOPS) -> Answer:
    path, _, query = link.partition("?")
    state = build_state()
    state.hops = hops
    handled = handle_hop(state, request_of(query, path=path, now_ms=now_ms), "")
    assert (handled.event, handled.session) == (b"", None)
    return handled.answer


def test_two_pages_lead_to_the_target_which_sees_our_origin() -> None:
    """The first leads to a path of ours, without the target's name in the clear; the second to the target."""
    first = send_to(TARGET, "double_meta_refresh", "c=1", HOPS, NOW_MS)
    link = target_of(first)
    assert re.fullmatch(r"/hop\?u=[A-Za-z0-9_-]+&s=[0-9a-f]{32}", link)
    assert (first.cookie, dict(first.extra)["Referrer-Policy"]) == ("c=1", "no-referrer")
    second = follow(link)
    assert (second.status, second.cookie, dict(second.extra)["Referrer-Policy"]) == (200, "", "origin")
    assert target_of(second) == TARGET


def test_a_link_that_fits_no_request_line_goes_by_one_page() -> None:
    """The longest target: the referrer is hidden all the same."""
    long = TARGET + "x" * 8000
    assert target_of(send_to(long, "double_meta_refresh", "", HOPS, NOW_MS)) == long
    fitting = TARGET + "x" * 5800
    link = target_of(send_to(fitting, "double_meta_refresh", "", HOPS, NOW_MS))
    assert len(f"HEAD {link} HTTP/1.1") <= 8192
    assert target_of(follow(link)) == fitting


def test_a_hop_leads_nowhere_that_we_did_not_sign() -> None:
    """Another target, tag or key, no tag, half a one, one of other letters."""
    link = HOPS.link_to(TARGET, NOW_MS)
    params = parse_query(link.partition("?")[2])
    evil = urlsafe_b64encode(b"https://evil.example/").decode().rstrip("=")
    assert target_of(follow(link)) == TARGET
    for u, s in (
        (evil, params["s"]),
        (params["u"] + "A", params["s"]),
        (params["u"] + "=", params["s"]),
        (params["u"], params["s"].upper()),
        (params["u"], params["s"][:-1]),
        (params["u"], "0" * 32),
        (params["u"], "%C3%BC"),
        (params["u"], ""),
        ("", params["s"]),
        ("", ""),
    ):
        assert follow(f"/hop?u={u}&s={s}") == BAD_HOP, (u, s)
    assert follow(link, hops=Hops(("another secret",))) == BAD_HOP


def test_a_hop_lives_a_day_at_least_and_two_at_most() -> None:
    """Long enough for a tab that sleeps; a host that left the catalog is out of reach soon."""
    midnight_ms = NOW_MS // DAY_MS * DAY_MS
    link = HOPS.link_to(TARGET, midnight_ms)
    assert target_of(follow(link, midnight_ms + 2 * DAY_MS - 1)) == TARGET
    assert follow(link, midnight_ms + 2 * DAY_MS) == BAD_HOP
    assert follow(link, midnight_ms - 1) == BAD_HOP


def test_every_secret_verifies_and_the_first_signs() -> None:
    """A secret is changed by adding it last everywhere, then putting it first."""
    old, adding, changed = Hops(("old",)), Hops(("old", "new")), Hops(("new", "old"))
    assert target_of(follow(adding.link_to(TARGET, NOW_MS), hops=old)) == TARGET
    assert target_of(follow(changed.link_to(TARGET, NOW_MS), hops=adding)) == TARGET
    assert target_of(follow(old.link_to(TARGET, NOW_MS), hops=changed)) == TARGET


@given(st.text(max_size=60), st.text(max_size=40))
def test_no_hop_of_a_clients_making_fails_or_leads_anywhere(packed: str, tag: str) -> None:
    """Whatever it sends, the answer is the same short 404."""
    assert HOPS.location_of(packed, tag.encode("utf-8", "replace").decode(), NOW_MS) == ""
