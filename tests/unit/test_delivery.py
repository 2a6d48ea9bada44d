"""edge/tracking/delivery.py: rules, stand-ins and pages together, as a click's answer and event show them."""

import re
from collections import Counter
from html import unescape
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.tracking.click import handle_click
from edge.tracking.delivery import rules_of
from edge.tracking.redirects import handle_hop
from edge.tracking.request import Answer, Handled
from edge.tracking.state import EdgeState
from edge.tracking.urls import MAX_URL_CHARS, host_of
from storage.journal.events import Click, decode
from tests.unit.test_deep_links import REFUSED
from tests.wire.edge_state import CATALOG, DELIVERY, NOW_MS, build_state, request_of

OFFERS = """
[[offers]]
id = 50
advertiser_id = 1
name = "Asked for"
url = "https://own.example.com/"
redirect_offer_id = 17
allowed_domains = ["own.example.com"]
landing_pages = [
  { id = 1, url = "https://page1.example.com/" },
  { id = 2, url = "https://page2.example.com/", weight = 1 },
]
rules = [
  { when = { source = ["page"] }, then = { landing_page_id = 1 } },
  { when = { source = ["url"] }, then = { url = "https://ruled.example.com/{aff_id}/{source}?l={url_id}" } },
  { when = { source = ["offer"] }, then = { offer_id = 51 } },
  { when = { source = ["over"] }, then = { offer_id = 21 } },
  { when = { source = ["ended"] }, then = { offer_id = 24 } },
  { when = { source = ["no"] }, then = { reject = "not yours" } },
  { when = { source = ["round"] }, then = { offer_id = 52 } },
  { when = { source = ["rejecting"] }, then = { offer_id = 53 } },
]

[[offers]]
id = 51
advertiser_id = 1
name = "Next"
url = "https://next.example.com/"
allowed_domains = ["next.example.com"]
rules = [{ when = { aff_sub1 = ["x"] }, then = { url = "https://nextrule.example.com/" } }]

[[offers]]
id = 52
advertiser_id = 1
name = "Sends it back"
url = "https://back.example.com/"
rules = [{ then = { offer_id = 50 } }]

[[offers]]
id = 53
advertiser_id = 1
name = "Rejects everything"
url = "https://all.example.com/"
rules = [{ then = { reject = "nobody" } }]

[[offers]]
id = 54
advertiser_id = 1
name = "Some visitors"
url = "https://rest.example.com/"
rules = [{ when = { percentage = 30 }, then = { url = "https://some.example.com/" } }]
"""
AGENT = {"User-Agent": "Mozilla/5.0"}


def state_of(fallback: str = "") -> EdgeState:
    return build_state(CATALOG + OFFERS + DELIVERY, fallback=fallback)


def click(state: EdgeState, query: str, headers: dict[str, str] | None = None, **fields: Any) -> tuple[Handled, Click]:
    handled = handle_click(state, request_of(query, headers or AGENT, **fields), "")
    event = decode(handled.event)
    assert isinstance(event, Click)
    return handled, event


def host(handled: Handled) -> str:
    return handled.answer.location.partition("//")[2].partition("/")[0]


def notes(event: Click) -> dict[str, str]:
    return {name: value for name, value in event.params.items() if name.startswith("r")}


@pytest.mark.parametrize(
    ("query", "where", "offer_id", "page_id", "reason", "kept"),
    [
        ("offer_id=50", "page2.example.com", 50, 2, "", {}),
        ("offer_id=50&source=page", "page1.example.com", 50, 1, "", {"rule": "1"}),
        ("offer_id=50&source=url", "ruled.example.com", 50, 0, "", {"rule": "2"}),
        ("offer_id=50&source=offer", "next.example.com", 51, 0, "", {"rule": "3", "requested_offer_id": "50"}),
        ("offer_id=50&source=offer&aff_sub=x", "nextrule.example.com", 51, 0, "",
         {"rule": "3,51:1", "requested_offer_id": "50"}),
        ("offer_id=50&source=over", "shop.example.com", 17, 0, "offer_expired",
         {"rule": "4", "requested_offer_id": "50"}),
        ("offer_id=50&source=no", "shop.example.com", 17, 0, "targeting",
         {"rule": "6", "rule_reason": "not yours", "requested_offer_id": "50"}),
        ("offer_id=50&source=no&url_id=1", "pages.example.com", 17, 1, "targeting",
         {"rule": "6", "rule_reason": "not yours", "requested_offer_id": "50"}),
        ("offer_id=50&url_id=1", "page1.example.com", 50, 1, "", {}),
        ("offer_id=50&source=page&url_id=2", "page2.example.com", 50, 2, "", {}),
        ("offer_id=50&source=page&url_id=77", "page1.example.com", 50, 1, "", {"rule": "1"}),
        ("offer_id=50&source=url&url_id=1", "page1.example.com", 50, 1, "", {}),
        ("offer_id=50&url=https://own.example.com/deep", "own.example.com", 50, 0, "", {}),
        ("offer_id=50&source=page&url=https://own.example.com/deep", "own.example.com", 50, 0, "", {}),
        ("offer_id=50&url_id=1&url=https://own.example.com/deep", "own.example.com", 50, 1, "", {}),
        ("offer_id=50&source=offer&url=https://next.example.com/deep", "next.example.com", 51, 0, "",
         {"rule": "3", "requested_offer_id": "50"}),
        ("offer_id=51", "next.example.com", 51, 0, "", {}),
        ("offer_id=51&aff_sub=x", "nextrule.example.com", 51, 0, "", {"rule": "1"}),
    ],
)  # fmt: skip
def test_rules_and_links_decide_where_a_click_goes(
    query: str, where: str, offer_id: int, page_id: int, reason: str, kept: dict[str, str]
) -> None:
    """Rules choose the offer; of its pages the link's own wish comes first, then the rule's, then the rotation's."""
    handled, event = click(state_of(), query + "&aff_id=2")
    assert (host(handled), event.session.offer_id, event.session.landing_page_id) == (where, offer_id, page_id)
    assert (event.outcome, event.reason, event.flags, notes(event)) == ("redirected", reason, [], kept)
    assert handled.session == event.session
    assert handled.answer.cookie.startswith(f"ce_{offer_id}=")


def test_a_rules_url_is_a_template() -> None:
    """With the macros of any other URL."""
    handled, _ = click(state_of(), "offer_id=50&aff_id=2&source=url")
    assert handled.answer.location == "https://ruled.example.com/2/url?l="


@pytest.mark.parametrize(
    ("source", "reason", "kept"),
    [
        ("ended", "offer_paused", {"rule": "5"}),
        ("round", "targeting", {"rule": "7,52:1,7,52:1"}),
        ("rejecting", "targeting", {"rule": "8,53:1", "rule_reason": "nobody"}),
    ],
)
def test_a_click_that_no_offer_takes_goes_to_the_fallback(source: str, reason: str, kept: dict[str, str]) -> None:
    """Stand-ins that are none, rules in a circle: three steps and an end; without a fallback it is 404."""
    query = f"offer_id=50&aff_id=2&source={source}&url=https://own.example.com/deep"
    handled, event = click(state_of("https://fall.example.com/?o={offer_id}"), query)
    assert handled.answer.location == "https://fall.example.com/?o=50"
    assert (event.outcome, event.reason, notes(event)) == ("fallback", reason, kept)
    assert event.flags == ["deep_link_refused"]
    assert (event.session.offer_id, handled.session, handled.answer.cookie) == (50, None, "")
    refused, event = click(state_of(), query)
    assert (refused.answer.status, event.outcome, event.reason) == (404, "rejected", reason)


def test_a_blocked_partners_click_is_ruled_like_any_other() -> None:
    """The reason is the partner's, where the rule gave none."""
    _, event = click(state_of(), "offer_id=50&aff_id=3&source=page")
    assert (event.reason, notes(event), event.session.landing_page_id) == ("partner_blocked", {"rule": "1"}, 1)


def test_what_we_note_cannot_be_sent_and_is_never_crowded_out() -> None:
    """It stands before all that the link brought, of which a bounded number is kept."""
    many = "".join(f"&p{number}=1" for number in range(60))
    _, event = click(state_of(), f"offer_id=50&aff_id=2&rule=99&rule_reason=mine&requested_offer_id=1{many}&source=no")
    assert list(event.params.items())[:3] == [
        ("rule", "6"), ("rule_reason", "not yours"), ("requested_offer_id", "50")
    ]  # fmt: skip
    _, event = click(state_of(), "offer_id=50&aff_id=2&rule=99&rule_reason=mine&requested_offer_id=1")
    assert event.params == {"offer_id": "50", "aff_id": "2"}


@pytest.mark.parametrize(("query", "flags"), [
    ("url=https://own.example.com/a%20b", []),
    ("url=https://www.own.example.com/", []),
    ("url=https://evil.example/", ["deep_link_refused"]),
    ("url=javascript:alert(1)", ["deep_link_refused"]),
    ("url=", []),
])  # fmt: skip
def test_a_refused_deep_link_is_flagged_and_the_click_goes_on(query: str, flags: list[str]) -> None:
    """To what it would have got without one."""
    handled, event = click(state_of(), f"offer_id=50&aff_id=2&{query}")
    assert event.flags == flags
    if flags:
        assert host(handled) == "page2.example.com"
    assert handled.answer.location != "https://own.example.com/"


def test_a_deep_link_is_sent_as_decoded() -> None:
    """One step of decoding, bytes outside RFC 3986 encoded again."""
    deep = "url=https%3A%2F%2Fown.example.com%2Fs%3Fq%3Dred%2520shoes%26x%3Da+b%22%23top"
    handled, event = click(state_of(), f"offer_id=50&aff_id=2&{deep}")
    assert handled.answer.location == "https://own.example.com/s?q=red%20shoes&x=a%20b%22#top"
    assert event.params["url"] == 'https://own.example.com/s?q=red%20shoes&x=a b"#top'


def visit(state: EdgeState, offer_id: int, number: int, cookie: str = "") -> tuple[str, str]:
    """Where a visitor with that browser goes, and its next cookie."""
    headers = {"User-Agent": f"Browser {number}"} | ({"Cookie": cookie} if cookie else {})
    handled, _ = click(state, f"offer_id={offer_id}&aff_id=2", headers)
    path = re.sub("[0-9a-f]{32}", "", handled.answer.location)
    return path, handled.answer.cookie.partition(";")[0]


@pytest.mark.parametrize(("offer_id", "most", "share"), [(40, "https://pages.example.com/a?c=", 0.7), (54, "https://rest.example.com/", 0.7)])
def test_a_visitor_without_cookies_is_shown_the_same_again(offer_id: int, most: str, share: float) -> None:
    """By address and user agent, in any worker and at any time; visitors are shared out by weight."""
    first, second = state_of(), state_of()
    went = [visit(first, offer_id, number)[0] for number in range(2000)]
    assert went == [visit(second, offer_id, number)[0] for number in range(2000)]
    assert abs(Counter(went)[most] / 2000 - share) < 0.04


@pytest.mark.parametrize("offer_id", [40, 54])
def test_a_visitor_with_the_cookie_is_shown_the_same_from_anywhere(offer_id: int) -> None:
    """From the first click on, which had no cookie: whatever browser and address it names later, and how often."""
    state = state_of()
    for number in range(40):
        went, cookie = visit(state, offer_id, number)
        assert re.fullmatch(rf"ce_{offer_id}=[0-9a-f]{{32}}\.[0-9a-f]{{32}}\.[0-9a-f]{{8}}", cookie)
        seeds = {cookie.rpartition(".")[2]}
        for later in range(3):
            again, cookie = visit(state, offer_id, 1000 * later + 777, cookie)
            assert again == went
            seeds.add(cookie.rpartition(".")[2])
        assert len(seeds) == 1


def test_a_cookie_of_before_the_rotation_decides_by_its_first_click() -> None:
    """Then its seed is kept like any other's; where nothing hangs on the visitor, no cookie has one."""
    state = state_of()
    plain = click(state, "offer_id=40&aff_id=2&url_id=1")[0].answer.cookie.partition(";")[0]
    assert re.fullmatch(r"ce_40=[0-9a-f]{32}\.[0-9a-f]{32}", plain)
    went, cookie = visit(state, 40, 1, plain)
    assert {visit(state, 40, number, plain)[0] for number in range(20)} == {went}
    assert visit(state, 40, 5, cookie)[0] == went
    assert cookie.count(".") == 2


def test_an_opted_out_visitor_gets_a_page_and_no_cookie() -> None:
    """The choice hangs on nothing that is stored."""
    handled, event = click(state_of(), "offer_id=40&aff_id=2", {"Sec-GPC": "1"})
    assert (host(handled), handled.answer.cookie, event.flags) == ("pages.example.com", "", ["opted_out"])
    assert event.session.landing_page_id in (1, 2)


def test_an_expired_offer_asks_no_rule() -> None:
    """Its refusal is first."""
    offer = OFFERS.replace('name = "Rejects everything"', 'name = "R"\nexpires_at = 2027-01-15T08:00:00Z')
    state = build_state(CATALOG + offer)
    assert click(state, "offer_id=53&aff_id=2", now_ms=NOW_MS - 1)[1].reason == "targeting"
    _, event = click(state, "offer_id=53&aff_id=2", now_ms=NOW_MS)
    assert (event.reason, notes(event)) == ("offer_expired", {})


@pytest.mark.parametrize("redirect", ["301", "303", "307"])
def test_a_status_is_the_offers_own(redirect: str) -> None:
    """With Location and cookie as ever."""
    state = build_state(CATALOG + DELIVERY.replace('redirect = "303"', f'redirect = "{redirect}"'))
    handled, _ = click(state, "offer_id=44&aff_id=2")
    assert (handled.answer.status, host(handled)) == (int(redirect), "shop.example.com")
    assert handled.answer.cookie.startswith("ce_44=")


HOSTS = ("shop.example.com", "pages.example.com", "first.example.com", "own.example.com", "next.example.com",
         "back.example.com", "ruled.example.com", "nextrule.example.com", "page1.example.com", "page2.example.com",
         "some.example.com", "rest.example.com", "all.example.com")  # fmt: skip
NAMES = st.sampled_from(["source", "aff_sub", "url", "url", "url_id", "rule", "rule_reason", "contact_id", "x"])
VALUES = st.one_of(
    st.sampled_from(["page", "url", "offer", "over", "no", "round", "other", "link", "away", "1", "2", "4"]),
    st.sampled_from(REFUSED),
    st.sampled_from([url.replace("shop.", f"{name}.") for url in REFUSED for name in ("own", "next")]),
    st.text(max_size=20).map("https://shop.example.com".__add__),
    st.text(max_size=20),
)
COOKIES = st.one_of(st.just(""), st.text(max_size=40), st.from_regex(r"ce_5[0-4]=[0-9a-f.]{60,80}", fullmatch=True))


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from([40, 41, 42, 43, 44, 50, 51, 52, 53, 54]),
    st.lists(st.tuples(NAMES, VALUES), max_size=6),
    COOKIES,
    st.text(max_size=20),
)
def test_no_click_is_led_off_the_catalog(
    offer_id: int, sent: list[tuple[str, str]], cookie: str, agent: str
) -> None:
    """Whatever a link and a browser bring, by status, by page and by hop: a host that the catalog names."""
    query = urlencode([("offer_id", str(offer_id)), ("aff_id", "2"), *sent], errors="replace")
    handled, _ = click(FUZZED, query, {"User-Agent": agent, "Cookie": cookie})
    answer = handled.answer
    location = answer.location or (page_target(answer) if answer.status == 200 else "")
    if location.startswith("/hop?"):
        hop = handle_hop(FUZZED, request_of(location.partition("?")[2], path="/hop"), "").answer
        location = page_target(hop)
    assert (answer.status == 404) == (location == "")
    if location:
        assert location.isascii()
        assert location.isprintable()
        assert host_of(location[:MAX_URL_CHARS]).removeprefix("www.") in HOSTS


FUZZED = state_of()


def page_target(answer: Answer) -> str:
    [target] = re.findall(r'content="0;url=([^"]*)"', answer.body.decode("ascii"))
    return unescape(target)


@pytest.mark.parametrize(
    ("note", "rules"),
    [("", []), ("2", [(50, 2)]), ("18:1", [(18, 1)]), ("2,18:1,19:3", [(50, 2), (18, 1), (19, 3)])],
)
def test_a_note_of_rules_is_read_back(note: str, rules: list[tuple[int, int]]) -> None:
    """Each rule's offer and position; without an offer it is that which was asked for."""
    assert rules_of(note, 50) == rules
