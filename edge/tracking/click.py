"""A click and an impression: session, redirect, event. A click never fails for want of a side condition."""

from typing import NamedTuple

from msgspec.structs import replace

from edge.tracking import cookies
from edge.tracking.catalog import Catalog, OfferView
from edge.tracking.macro_values import locate
from edge.tracking.parameters import to_id
from edge.tracking.request import GIF, Answer, Handled, Kind, Request, text
from edge.tracking.state import EdgeState
from storage.journal.events import Click, Impression, Outcome, Session, encode

MAX_REDIRECT_OFFERS = 3
UNKNOWN_OFFER = text(404, "unknown offer")
_NO_FLAGS: list[str] = []
_NO_COOKIE = frozenset(("prefetch", "opted_out"))
_CLICK, _IMPRESSION = Kind.CLICK.value, Kind.IMPRESSION.value


class Delivery(NamedTuple):
    """Which offer takes the click, if any, and why it is not the one asked for (or whose partner is not known)."""

    offer: OfferView | None
    reason: str


def deliver(catalog: Catalog, offer_id: int, aff_id: int, now_ms: int) -> Delivery:
    """Follow paused and expired offers to their `redirect_offer_id`, at most three steps."""
    offer = catalog.offer(offer_id)
    if offer is None:
        return Delivery(None, "unknown_offer")
    reason = offer.refusal(now_ms)
    refused = reason
    for _ in range(MAX_REDIRECT_OFFERS):
        if not refused or offer is None:
            break
        offer = catalog.offer(offer.redirect_offer_id)
        refused = offer.refusal(now_ms) if offer else "unknown_offer"
    if refused:
        return Delivery(None, reason)
    return Delivery(offer, reason or _partner_refusal(catalog, aff_id))


def _partner_refusal(catalog: Catalog, aff_id: int) -> str:
    partner = catalog.partner(aff_id)
    if partner is None:
        return "unknown_partner"
    return "partner_blocked" if partner.status == "blocked" else ""


def handle_click(state: EdgeState, request: Request, alias: str) -> Handled:
    """GET or HEAD `/aff_c`: 302 to the offer, its stand-in or the fallback; 404 when there is none of these."""
    params, headers, now_ms = request.params, request.headers, request.received_ms
    catalog = state.catalog
    find_offer, find_partner = catalog.offer, catalog.partner
    sent_offer, sent_aff = params.get("offer_id", ""), params.get("aff_id", "")
    offer, partner = find_offer(sent_offer), find_partner(sent_aff)
    if offer is not None and partner is not None and now_ms < offer.open_until_ms and partner.status == "active":
        offer_id, aff_id, reason = offer.id, partner.id, ""
    else:
        offer_id, aff_id = to_id(sent_offer), to_id(sent_aff)
        offer, reason = deliver(catalog, offer_id, aff_id, now_ms)
    session = _open_session(state, request, offer, offer_id, aff_id)
    is_plain = request.method == "GET" and not (
        headers.is_prefetch or headers.opts_out or "url" in params or "ad_id" in params
    )
    flags, first = _NO_FLAGS if is_plain else _flags(state, request), b""
    outcome: Outcome = "redirected"
    id_text = session.click_id.hex()
    if offer is not None:
        if headers.cookie:
            first = cookies.first_click(request, offer, state.ids)
        template = offer.template_of(session.landing_page_id)
        location = locate(template, offer, session, id_text, request, state)
        has_cookie = not headers.opts_out or not state.honour_gpc
        cookie = cookies.remember(offer, first, id_text, is_https=request.is_https) if has_cookie else ""
        answer = Answer(302, location=location, cookie=cookie)
        if offer.id != offer_id:
            params = {**params, "requested_offer_id": str(offer_id)}
    elif state.fallback is not None:
        outcome = "fallback"
        answer = Answer(302, location=locate(state.fallback, None, session, id_text, request, state))
    else:
        outcome, answer = "rejected", UNKNOWN_OFFER
    event = encode(Click(session, outcome, reason, flags, alias, params, headers.referrer, headers.language, first))
    return Handled(_CLICK, outcome, answer, event, True, session if offer is not None else None)


def handle_impression(state: EdgeState, request: Request, alias: str) -> Handled:
    """GET `/aff_i`: the GIF, whatever the offer; the impression is recorded with what was wrong about it."""
    params, headers = request.params, request.headers
    offer_id, aff_id = to_id(params.get("offer_id", "")), to_id(params.get("aff_id", ""))
    offer = state.catalog.offer(offer_id)
    reason = "unknown_offer"
    if offer is not None:
        reason = offer.refusal(request.received_ms) or _partner_refusal(state.catalog, aff_id)
    session = _open_session(state, request, offer, offer_id, aff_id)
    outcome: Outcome = "recorded" if offer is not None else "rejected"
    first = cookies.first_click(request, offer, state.ids) if offer is not None else b""
    flags = _flags(state, request)
    event = Impression(session, outcome, reason, flags, alias, params, headers.referrer, headers.language, first)
    answer = GIF
    if offer is not None and offer.impression_window_s and not reason and _NO_COOKIE.isdisjoint(flags):
        cookie = cookies.remember_view(offer, session.click_id, is_https=request.is_https)
        answer = replace(GIF, cookie=cookie)
    return Handled(_IMPRESSION, outcome, answer, encode(event), is_droppable=True)


def _open_session(state: EdgeState, request: Request, offer: OfferView | None, offer_id: int, aff_id: int) -> Session:
    params = request.params
    url_id, file_id = params.get("url_id"), params.get("file_id")
    return Session(
        state.ids.mint(request.received_ms),
        state.catalog.revision,
        offer.id if offer else offer_id,
        aff_id,
        _landing_page(offer, to_id(url_id)) if url_id else 0,
        to_id(file_id) if file_id else 0,
        params.get("contact_id", ""),
        request.client_ip,
        request.headers.user_agent,
    )


def _landing_page(offer: OfferView | None, url_id: int) -> int:
    return url_id if offer is not None and url_id in offer.landing_templates else 0


def _flags(state: EdgeState, request: Request) -> list[str]:
    headers = request.headers
    flags = ["prefetch"] if headers.is_prefetch or request.method == "HEAD" else []
    if "url" in request.params:
        flags.append("deep_link_refused")
    if "ad_id" in request.params:  # a postback may come with it from now on
        state.has_external_ids = True
    if headers.opts_out and state.honour_gpc:
        flags.append("opted_out")
    return flags
