"""edge/tracking/click.py: where a click goes, why, and what its event says."""

from typing import Any

import msgspec
import pytest

from edge.tracking.catalog import Catalog
from edge.tracking.click import handle_click, handle_direct_click, handle_impression
from edge.tracking.delivery import Seeds, deliver
from edge.tracking.request import GIF, Handled, Kind
from edge.tracking.state import EdgeState
from storage.journal.events import Click, Impression, decode
from tests.wire.edge_state import NOW_MS, build_catalog, build_state, request_of
from tests.wire.port import session_of

CATALOG = build_catalog()


def clicked(handled: Handled) -> Click:
    event = decode(handled.event)
    assert isinstance(event, Click)
    return event


def offer_body(offer_id: int, **fields: Any) -> tuple[str, str, bytes]:
    body = {"id": offer_id, "advertiser_id": 1, "name": "O", "url": f"https://o{offer_id}.example.com/"} | fields
    return "offers", str(offer_id), msgspec.json.encode(body)


def where(catalog: Catalog, offer_id: int, aff_id: int = 2, now_ms: int = NOW_MS) -> tuple[int, str]:
    state, request = build_state(catalog), request_of(now_ms=now_ms)
    offer, reason, rule, notes = deliver(state, request, Seeds(state, request), offer_id, aff_id)
    assert (rule, notes) == (None, {})
    return offer.id if offer else 0, reason


@pytest.mark.parametrize(
    ("offer_id", "aff_id", "expected"),
    [
        (17, 2, (17, "")),
        (17, 3, (17, "partner_blocked")),
        (17, 99, (17, "unknown_partner")),
        (17, 0, (17, "unknown_partner")),
        (22, 2, (17, "offer_expired")),
        (21, 2, (17, "offer_expired")),
        (20, 2, (17, "offer_paused")),
        (20, 3, (17, "offer_paused")),
        (24, 2, (0, "offer_paused")),
        (99, 2, (0, "unknown_offer")),
        (0, 2, (0, "unknown_offer")),
    ],
)
def test_a_click_follows_its_offers_stand_ins(offer_id: int, aff_id: int, expected: tuple[int, str]) -> None:
    """Three steps at most; the reason is that of the offer asked for; a partner never stops a click."""
    assert where(CATALOG, offer_id, aff_id) == expected


def test_a_fourth_step_and_a_stand_in_that_is_gone_are_not_followed() -> None:
    """What `apply` refuses, an older catalog may hold: the click ends there and says why it began."""
    catalog = CATALOG.changed(
        8,
        [
            offer_body(30, status="paused", redirect_offer_id=20),
            offer_body(31, status="paused", redirect_offer_id=31),
            offer_body(32, status="expired", redirect_offer_id=77),
        ],
    )
    assert where(catalog, 30) == (0, "offer_paused")
    assert where(catalog, 31) == (0, "offer_paused")
    assert where(catalog, 32) == (0, "offer_expired")


def test_an_offer_expires_at_its_very_millisecond() -> None:
    """`expires_at` is the first moment at which it takes no click."""
    catalog = CATALOG.changed(8, [offer_body(30, expires_at="2027-01-15T08:00:00Z")])
    assert where(catalog, 30, now_ms=NOW_MS - 1) == (30, "")
    assert where(catalog, 30, now_ms=NOW_MS) == (0, "offer_expired")


def test_a_click_is_answered_remembered_and_told() -> None:
    """The id in the Location, in the session memory and in the event is one and the same."""
    state = build_state(CATALOG)
    headers = {"User-Agent": "Mozilla/5.0", "Referer": "https://blog.example/p\x01", "Accept-Language": "de-DE,de"}
    query = "offer_id=17&aff_id=2&aff_sub=hello&url_id=1&file_id=5&contact_id=c-7&gclid=x"
    handled = handle_click(state, request_of(query, headers), "SL2")
    event = clicked(handled)
    session = session_of(event)
    assert (handled.kind, handled.outcome, handled.is_droppable) == (Kind.CLICK, "redirected", True)
    assert handled.answer.location == f"https://pages.example.com/a?clickid={session.click_id.hex()}"
    assert handled.session == session
    assert len(state.sessions) == 0
    assert state.ids.parse(session.click_id.hex()) == session.click_id
    assert msgspec.structs.astuple(session)[1:] == (7, 17, 2, 1, 5, "c-7", "203.0.113.9", "Mozilla/5.0")
    assert (event.outcome, event.reason, event.flags, event.alias) == ("redirected", "", [], "SL2")
    assert (event.referrer, event.language, event.visitor) == ("https://blog.example/p", "de-DE,de", b"")
    assert event.params == {
        "offer_id": "17", "aff_id": "2", "aff_sub1": "hello", "url_id": "1", "file_id": "5", "contact_id": "c-7",
        "gclid": "x",
    }  # fmt: skip


def test_a_landing_page_of_another_offer_is_none() -> None:
    """An unknown url_id leads to the offer's own URL, and the session has no landing page."""
    handled = handle_click(build_state(CATALOG), request_of("offer_id=17&aff_id=2&url_id=9"), "")
    assert handled.answer.location.startswith("https://shop.example.com/landing?")
    assert session_of(clicked(handled)).landing_page_id == 0


def test_a_stand_in_is_told_with_the_offer_asked_for() -> None:
    """The session is the stand-in's, so that its conversions are; the event remembers the link."""
    handled = handle_click(build_state(CATALOG), request_of("offer_id=20&aff_id=2"), "")
    event = clicked(handled)
    assert (event.outcome, event.reason, session_of(event).offer_id) == ("redirected", "offer_paused", 17)
    assert event.params["requested_offer_id"] == "20"
    assert handled.answer.cookie.startswith("ce_17=")


@pytest.mark.parametrize(("query", "offer_id"), [("offer_id=24&aff_id=2", 24), ("offer_id=99", 99), ("offer_id=x", 0)])
def test_without_an_offer_the_fallback_takes_the_click(query: str, offer_id: int) -> None:
    """Its macros are filled in too; there is no cookie and no session to convert later."""
    state = build_state(CATALOG, fallback="https://fall.example.com/?o={offer_id}&a={aff_id}&t={transaction_id}")
    handled = handle_click(state, request_of(query), "")
    session = session_of(clicked(handled))
    a = "2" if "aff_id" in query else ""
    o = offer_id or ""
    assert handled.outcome == clicked(handled).outcome == "fallback"
    assert handled.answer.location == f"https://fall.example.com/?o={o}&a={a}&t={session.click_id.hex()}"
    assert (session.offer_id, handled.answer.cookie, handled.session) == (offer_id, "", None)


def test_without_a_fallback_the_click_is_refused_and_still_told() -> None:
    """404 in plain words; the event says `rejected` and why."""
    handled = handle_click(build_state(CATALOG), request_of("offer_id=99"), "")
    assert (handled.answer.status, handled.answer.body, handled.outcome) == (404, b"unknown offer\n", "rejected")
    assert (clicked(handled).outcome, clicked(handled).reason) == ("rejected", "unknown_offer")


def flags(headers: dict[str, str], state: EdgeState | None = None, **fields: Any) -> list[str]:
    return clicked(handle_click(state or build_state(CATALOG), request_of("offer_id=17", headers, **fields), "")).flags


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Purpose": "prefetch;prerender"},
        {"Purpose": "Prefetch"},
        {"X-Purpose": "preview"},
        {"X-Moz": "prefetch"},
        {"Sec-Purpose": "prerender"},
    ],
)
def test_a_fetch_ahead_is_flagged(headers: dict[str, str]) -> None:
    """Every browser's own header for it."""
    assert flags(headers) == ["prefetch"]


def test_head_is_flagged_and_other_purposes_are_not() -> None:
    """HEAD is no visitor; a header that says something else is nothing."""
    assert flags({}, method="HEAD") == ["prefetch"]
    assert flags({"Purpose": "navigate"}) == []


def test_an_opted_out_click_sets_no_cookie_while_that_is_honoured() -> None:
    """`Sec-GPC: 1` redirects as ever; with EDGE_HONOUR_GPC off it means nothing."""
    request = request_of("offer_id=17&aff_id=2", {"Sec-GPC": "1"})
    handled = handle_click(build_state(CATALOG), request, "")
    assert (handled.answer.status, handled.answer.cookie, clicked(handled).flags) == (302, "", ["opted_out"])
    ignored = handle_click(build_state(CATALOG, honour_gpc=False), request, "")
    assert (bool(ignored.answer.cookie), clicked(ignored).flags) == (True, [])
    assert flags({"Sec-GPC": "0"}) == []


def test_a_deep_link_goes_to_the_offer_and_is_flagged() -> None:
    """No domain is allowed by default: the offer's own URL, whatever `url` says."""
    handled = handle_click(build_state(CATALOG), request_of("offer_id=17&url=https%3A%2F%2Fevil.example%2F"), "")
    assert handled.answer.location.startswith("https://shop.example.com/")
    assert clicked(handled).flags == ["deep_link_refused"]
    assert clicked(handled).params["url"] == "https://evil.example/"


def test_the_visitor_is_the_cookies_first_click() -> None:
    """A returning browser is known by the offer's cookie, and its first click is kept there."""
    state = build_state(CATALOG)
    first = handle_click(state, request_of("offer_id=17"), "")
    cookie = first.answer.cookie.partition(";")[0]
    second = handle_click(state, request_of("offer_id=17", {"Cookie": cookie}), "")
    first_id, second_id = (session_of(clicked(one)).click_id for one in (first, second))
    assert clicked(second).visitor == first_id
    assert second.answer.cookie.startswith(f"ce_17={first_id.hex()}.{second_id.hex()};")


@pytest.mark.parametrize(
    ("offer_id", "aff_id", "outcome", "reason"),
    [
        (17, 2, "recorded", ""),
        (17, 3, "recorded", "partner_blocked"),
        (20, 2, "recorded", "offer_paused"),
        (99, 2, "rejected", "unknown_offer"),
    ],
)
def test_an_impression_gets_its_gif_and_is_told(offer_id: int, aff_id: int, outcome: str, reason: str) -> None:
    """Whatever is wrong with it; it is no click, so it makes no session. Only a good one sets the view's cookie."""
    state = build_state(CATALOG)
    query = f"offer_id={offer_id}&aff_id={aff_id}&file_id=4"
    handled = handle_impression(state, request_of(query, path="/aff_i"), "IM1")
    event = decode(handled.event)
    assert isinstance(event, Impression)
    assert handled.answer.body == GIF.body
    assert bool(handled.answer.cookie) == (not reason)
    assert (event.outcome, event.reason, event.alias) == (outcome, reason, "IM1")
    session = session_of(event)
    assert (session.offer_id, session.aff_id, session.creative_id) == (offer_id, aff_id, 4)
    assert (handled.is_droppable, handled.session) == (True, None)


def test_a_views_cookie_lasts_for_the_impression_window() -> None:
    """Its own name, the impression's id, HttpOnly; SameSite=None on https only; none while the window is 0."""
    state = build_state(CATALOG)
    for is_https, rest in ((False, ""), (True, "; SameSite=None; Secure")):
        handled = handle_impression(state, request_of("offer_id=17&aff_id=2", is_https=is_https), "")
        event = decode(handled.event)
        assert isinstance(event, Impression)
        shown = event.session.click_id.hex()
        assert handled.answer.cookie == f"cv_17={shown}; Max-Age=86400; Path=/; HttpOnly{rest}"
    off = build_state(CATALOG.changed(8, [offer_body(30, impression_window=0)]))
    assert handle_impression(off, request_of("offer_id=30&aff_id=2"), "").answer == GIF


@pytest.mark.parametrize(("header", "is_set"), [("Sec-GPC", False), ("Sec-Purpose", False), ("A", True)])
def test_no_view_is_remembered_of_who_opted_out_or_fetched_ahead(header: str, is_set: bool) -> None:
    """As for a click; with EDGE_HONOUR_GPC off an opt-out means nothing. Other flags do not matter."""
    headers = {header: "prefetch" if "Purpose" in header else "1"}
    request = request_of("offer_id=17&aff_id=2&url=x", headers)
    assert bool(handle_impression(build_state(CATALOG), request, "").answer.cookie) is is_set
    ignoring = handle_impression(build_state(CATALOG, honour_gpc=False), request, "")
    assert bool(ignoring.answer.cookie) is (header != "Sec-Purpose")


def test_a_click_with_an_id_of_its_senders_tells_the_worker_to_take_such_ids() -> None:
    """At once: the first postback may come before anything is published."""
    state = build_state(CATALOG)
    before = state.has_external_ids
    handled = handle_click(state, request_of("offer_id=17&aff_id=2&ad_id=A.1"), "")
    assert (before, state.has_external_ids) == (False, True)
    assert clicked(handled).params["ad_id"] == "A.1"
    assert clicked(handled).flags == []


@pytest.mark.parametrize(
    ("query", "headers", "method"),
    [
        ("offer_id=99&aff_id=2&ad_id=A.1", {}, "GET"),
        ("offer_id=17&aff_id=2&ad_id=A.1", {"Sec-Purpose": "prefetch"}, "GET"),
        ("offer_id=17&aff_id=2&ad_id=A.1", {}, "HEAD"),
        ("offer_id=17&aff_id=2&ad_id=A%201", {}, "GET"),
    ],
)
def test_a_click_whose_own_id_is_not_kept_changes_nothing(query: str, headers: dict[str, str], method: str) -> None:
    """Only what the drain keeps makes a network one with ids that are not ours; views and direct clicks do not either."""
    state = build_state(CATALOG)
    handle_click(state, request_of(query, headers, method=method), "")
    handle_impression(state, request_of("offer_id=17&aff_id=2&ad_id=A.1"), "")
    handle_direct_click(state, request_of("offer_id=17&aff_id=2&ad_id=A.1"), "")
    assert not state.has_external_ids


@pytest.mark.parametrize("name", ["rule", "rule_reason", "requested_offer_id"])
def test_nobody_writes_our_notes_into_a_click_or_view(name: str) -> None:
    """On the short way too: what stands there is what we found."""
    state, request = build_state(CATALOG), request_of(f"offer_id=17&aff_id=2&{name}=1&x=y")
    for handle in (handle_click, handle_direct_click, handle_impression):
        event = decode(handle(state, request, "").event)
        assert isinstance(event, Click | Impression)
        assert event.params == {"offer_id": "17", "aff_id": "2", "x": "y"}


def test_a_direct_click_beyond_a_cap_is_told_so() -> None:
    """It is answered like any other; no stand-in can take it, and it must earn nothing."""
    state = build_state(CATALOG.changed(8, [offer_body(30, caps={"daily_clicks": 1})]))
    request = request_of("offer_id=30&aff_id=2")
    for until_ms, reason in ((NOW_MS + 1, "capped"), (NOW_MS, "")):
        state.capped = {(30, 0): until_ms}
        handled = handle_direct_click(state, request, "")
        assert handled.answer.status == 200
        assert (clicked(handled).outcome, clicked(handled).reason) == ("recorded", reason)
