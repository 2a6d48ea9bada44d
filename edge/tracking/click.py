"""A click and an impression: session, redirect, event. A click never fails for want of a side condition."""

from typing import NamedTuple

from msgspec.structs import replace

from edge.tracking import cookies
from edge.tracking.caps import cap_refusal
from edge.tracking.catalog import OfferView
from edge.tracking.crediting import is_external_id
from edge.tracking.delivery import Page, Seeds, asked_page, choose_page, deliver, note_rule, partner_refusal
from edge.tracking.macro_values import locate
from edge.tracking.objections import forget_cookie, may_remember
from edge.tracking.parameters import to_id
from edge.tracking.redirects import send_to
from edge.tracking.request import GIF, Answer, Handled, Kind, Request, text
from edge.tracking.state import EdgeState
from storage.journal.events import Click, Impression, Outcome, Session, encode

UNKNOWN_OFFER = text(404, "unknown offer")
CORS = (("Access-Control-Allow-Origin", "*"),)
UNKNOWN_OFFER_JSON = Answer(404, b'{"error":"unknown offer"}', "application/json", extra=CORS)
_NO_FLAGS: list[str] = []
_NO_COOKIE = frozenset(("prefetch", "opted_out"))
_CLICK, _IMPRESSION = Kind.CLICK.value, Kind.IMPRESSION.value
MAX_CONTACT_CHARS = 8192
"""More than a request line has room for: only a POST can say more, and a session is no place for it."""
_OUR_NOTES = frozenset(("requested_offer_id", "rule", "rule_reason"))
"""What we keep among a click's parameters ourselves; a client that sends it says nothing."""


def handle_click(state: EdgeState, request: Request, alias: str) -> Handled:
    """GET or HEAD `/aff_c`: to the offer, its stand-in or the fallback; 404 when there is none of these."""
    params, headers = request.params, request.headers
    find_offer, find_partner = state.catalog.offer, state.catalog.partner
    offer, partner = find_offer(params.get("offer_id", "")), find_partner(params.get("aff_id", ""))
    if (
        offer is None
        or partner is None
        or request.received_ms >= offer.open_until_ms
        or partner.status != "active"
        or "url" in params
        or "ad_id" in params
        or "rule" in params
        or "rule_reason" in params
        or "requested_offer_id" in params
    ):
        return _handle_at_length(state, request, alias)
    # Nearly every click comes this way, on which nothing is to be decided: 302 to the offer's page.
    is_plain = request.method == "GET" and not (headers.is_prefetch or headers.opts_out)
    flags = _NO_FLAGS if is_plain else _flags(state, request)
    page_id = asked_page(offer, request) if "url_id" in params else 0
    session = _open_session(state, request, offer.id, partner.id, page_id)
    id_text = session.click_id.hex()
    has_cookie = is_plain or may_remember(state, headers)
    first = cookies.first_click(request, offer, state.ids) if headers.cookie and has_cookie else b""
    location = locate(offer.template_of(page_id), offer, session, id_text, request, state)
    cookie = cookies.remember(offer, first, id_text, is_https=request.is_https) if has_cookie else ""
    event = Click(session, "redirected", "", flags, alias, params, headers.referrer, headers.language, first)
    return Handled(_CLICK, "redirected", Answer(302, location=location, cookie=cookie), encode(event), True, session)


class _Sent(NamedTuple):
    """Where a click went, and as what session."""

    session: Session
    outcome: Outcome
    answer: Answer
    first: bytes = b""
    """The first click that the offer's cookie remembers."""
    is_deep_link: bool = False


def _handle_at_length(state: EdgeState, request: Request, alias: str) -> Handled:
    """A click of which anything may be true."""
    request = forget_cookie(state, request)
    params, headers = request.params, request.headers
    offer_id, aff_id = to_id(params.get("offer_id", "")), to_id(params.get("aff_id", ""))
    seeds = Seeds(state, request)
    offer, reason, rule, notes = deliver(state, request, seeds, offer_id, aff_id)
    if offer is None:
        sent = _send_away(state, request, offer_id, aff_id)
    else:
        page = choose_page(offer, rule, request, seeds)
        if page.rule is not None:
            note_rule(notes, page.rule, offer, offer_id)
        if offer.id != offer_id:
            notes["requested_offer_id"] = str(offer_id)
        sent = _send_on(state, request, offer, aff_id, page, seeds.found(offer))
    flags = _flags(state, request, is_deep_link=sent.is_deep_link)
    if offer is not None and "prefetch" not in flags and is_external_id(params.get("ad_id", "")):
        state.has_external_ids = True  # a postback may come with it from now on
    params = _noted(params, notes)
    event = Click(
        sent.session, sent.outcome, reason, flags, alias, params, headers.referrer, headers.language, sent.first
    )
    session = sent.session if offer is not None else None
    return Handled(_CLICK, sent.outcome, sent.answer, encode(event), True, session)


def _send_on(state: EdgeState, request: Request, offer: OfferView, aff_id: int, page: Page, seed: bytes) -> _Sent:
    """To the offer."""
    session = _open_session(state, request, offer.id, aff_id, page.landing_page_id)
    id_text = session.click_id.hex()
    location = page.deep_link or locate(page.template, offer, session, id_text, request, state)
    first = cookies.first_click(request, offer, state.ids)
    cookie = ""
    if may_remember(state, request.headers):
        cookie = cookies.remember_seed(offer, first, id_text, seed, is_https=request.is_https)
    answer = send_to(location, offer.redirect, cookie, state.hops, request.received_ms)
    return _Sent(session, "redirected", answer, first, bool(page.deep_link))


def _send_away(state: EdgeState, request: Request, offer_id: int, aff_id: int) -> _Sent:
    """No offer takes the click: to the fallback, if there is one."""
    session = _open_session(state, request, offer_id, aff_id, 0)
    if state.fallback is None:
        return _Sent(session, "rejected", UNKNOWN_OFFER)
    location = locate(state.fallback, None, session, session.click_id.hex(), request, state)
    return _Sent(session, "fallback", Answer(302, location=location))


def handle_direct_click(state: EdgeState, request: Request, alias: str) -> Handled:
    """`/clk`: a click of somebody who is on the offer's page already: its id as JSON, no redirect and no cookie."""
    params, headers = request.params, request.headers
    offer_id, aff_id = to_id(params.get("offer_id", "")), to_id(params.get("aff_id", ""))
    offer = state.catalog.offer(offer_id)
    outcome: Outcome = "rejected"
    reason, answer = _refusal(state, request, offer, aff_id), UNKNOWN_OFFER_JSON
    if offer is not None and not reason:
        reason = cap_refusal(state.capped, offer, aff_id, request.received_ms)
    session = _open_session(state, request, offer_id, aff_id, asked_page(offer, request))
    if offer is not None:
        outcome = "recorded"
        body = b'{"transaction_id":"%s"}' % session.click_id.hex().encode()
        answer = Answer(200, body, "application/json", extra=CORS)
    flags, params = _flags(state, request), _noted(params)
    event = Click(session, outcome, reason, flags, alias, params, headers.referrer, headers.language, b"")
    return Handled(_CLICK, outcome, answer, encode(event), True, session if offer is not None else None)


def handle_impression(state: EdgeState, request: Request, alias: str) -> Handled:
    """GET `/aff_i`: the GIF, whatever the offer; the impression is recorded with what was wrong about it."""
    request = forget_cookie(state, request)
    params, headers = request.params, request.headers
    offer_id, aff_id = to_id(params.get("offer_id", "")), to_id(params.get("aff_id", ""))
    offer = state.catalog.offer(offer_id)
    reason = _refusal(state, request, offer, aff_id)
    session = _open_session(state, request, offer.id if offer else offer_id, aff_id, asked_page(offer, request))
    outcome: Outcome = "recorded" if offer is not None else "rejected"
    first = cookies.first_click(request, offer, state.ids) if offer is not None else b""
    flags, params = _flags(state, request), _noted(params)
    event = Impression(session, outcome, reason, flags, alias, params, headers.referrer, headers.language, first)
    answer = GIF
    if offer is not None and offer.impression_window_s and not reason and _NO_COOKIE.isdisjoint(flags):
        cookie = cookies.remember_view(offer, session.click_id, is_https=request.is_https)
        answer = replace(GIF, cookie=cookie)
    return Handled(_IMPRESSION, outcome, answer, encode(event), is_droppable=True)


def _open_session(state: EdgeState, request: Request, offer_id: int, aff_id: int, page_id: int) -> Session:
    params = request.params
    file_id, contact = params.get("file_id"), params.get("contact_id", "")
    return Session(
        state.ids.mint(request.received_ms),
        state.catalog.revision,
        offer_id,
        aff_id,
        page_id,
        to_id(file_id) if file_id else 0,
        contact[:MAX_CONTACT_CHARS] if contact else "",
        request.client_ip,
        request.headers.user_agent,
    )


def _refusal(state: EdgeState, request: Request, offer: OfferView | None, aff_id: int) -> str:
    """What is wrong about a click or view that is not sent on, so that no stand-in can take it."""
    if offer is None:
        return "unknown_offer"
    return offer.refusal(request.received_ms) or partner_refusal(state.catalog, aff_id)


def _noted(params: dict[str, str], notes: dict[str, str] | None = None) -> dict[str, str]:
    """What was sent, with our own notes and none of the sender's."""
    if not notes and _OUR_NOTES.isdisjoint(params):
        return params
    return {**(notes or {}), **{name: value for name, value in params.items() if name not in _OUR_NOTES}}


def _flags(state: EdgeState, request: Request, *, is_deep_link: bool = False) -> list[str]:
    headers = request.headers
    flags = ["prefetch"] if headers.is_prefetch or request.method == "HEAD" else []
    if "url" in request.params and not is_deep_link:
        flags.append("deep_link_refused")
    if not may_remember(state, headers):
        flags.append("opted_out")
    return flags
