"""A click and an impression: session, redirect, event. A click never fails for want of a side condition."""

from typing import NamedTuple

from msgspec import Raw

from edge.tracking import cookies
from edge.tracking.catalog import Catalog, OfferView
from edge.tracking.macro_values import click_values
from edge.tracking.parameters import header_text, to_id
from edge.tracking.request import GIF, Answer, Handled, Headers, Kind, Request, text
from edge.tracking.state import EdgeState
from storage.journal.events import Click, Impression, Outcome, Session, encode

MAX_USER_AGENT_CHARS = 512
MAX_REFERRER_CHARS = 1024
MAX_LANGUAGE_CHARS = 64
MAX_REDIRECT_OFFERS = 3
UNKNOWN_OFFER = text(404, "unknown offer")
_PREFETCH_HEADERS = ("Sec-Purpose", "Purpose", "X-Purpose", "X-Moz")
_PREFETCH_WORDS = ("prefetch", "preview", "prerender")


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
    params = request.params
    requested_id = to_id(params.get("offer_id", ""))
    aff_id = to_id(params.get("aff_id", ""))
    offer, reason = deliver(state.catalog, requested_id, aff_id, request.received_ms)
    click_id = state.ids.mint(request.received_ms)
    session = _open_session(state, request, click_id, offer, requested_id, aff_id)
    encoded = encode(session)
    flags, first = _flags(state, request), b""
    outcome: Outcome = "redirected"
    if offer is not None:
        first = cookies.first_click(request, offer, state.ids)
        answer = _redirect(state, request, offer, session, first, flags)
        if offer.id != requested_id:
            params = {**params, "requested_offer_id": str(requested_id)}
    elif state.fallback is not None:
        outcome = "fallback"
        values = click_values(state.fallback.names, None, session, request, state)
        answer = Answer(302, location=state.fallback.expand(values))
    else:
        outcome, answer = "rejected", UNKNOWN_OFFER
    referrer, language = _provenance(request)
    event = encode(Click(Raw(encoded), outcome, reason, flags, alias, params, referrer, language, first))
    known = encoded if offer is not None else b""
    return Handled(Kind.CLICK, outcome, answer, event, True, click_id, known)


def _redirect(
    state: EdgeState, request: Request, offer: OfferView, session: Session, first: bytes, flags: list[str]
) -> Answer:
    template = offer.template_of(session.landing_page_id)
    location = template.expand(click_values(template.names, offer, session, request, state))
    if "opted_out" in flags:
        return Answer(302, location=location)
    cookie = cookies.remember(offer, first, session.click_id, is_https=request.is_https)
    return Answer(302, location=location, cookies=(cookie,))


def handle_impression(state: EdgeState, request: Request, alias: str) -> Handled:
    """GET `/aff_i`: the GIF, whatever the offer; the impression is recorded with what was wrong about it."""
    params = request.params
    offer_id, aff_id = to_id(params.get("offer_id", "")), to_id(params.get("aff_id", ""))
    offer = state.catalog.offer(offer_id)
    reason = "unknown_offer"
    if offer is not None:
        reason = offer.refusal(request.received_ms) or _partner_refusal(state.catalog, aff_id)
    session = _open_session(state, request, state.ids.mint(request.received_ms), offer, offer_id, aff_id)
    outcome: Outcome = "recorded" if offer is not None else "rejected"
    first = cookies.first_click(request, offer, state.ids) if offer is not None else b""
    flags = _flags(state, request)
    event = Impression(Raw(encode(session)), outcome, reason, flags, alias, params, *_provenance(request), first)
    return Handled(Kind.IMPRESSION, outcome, GIF, encode(event), is_droppable=True)


def _open_session(
    state: EdgeState, request: Request, click_id: bytes, offer: OfferView | None, offer_id: int, aff_id: int
) -> Session:
    params = request.params
    return Session(
        click_id,
        state.catalog.revision,
        offer.id if offer else offer_id,
        aff_id,
        _landing_page(offer, to_id(params.get("url_id", ""))),
        to_id(params.get("file_id", "")),
        params.get("contact_id", ""),
        request.client_ip,
        header_text(request.headers, "User-Agent", MAX_USER_AGENT_CHARS),
    )


def _landing_page(offer: OfferView | None, url_id: int) -> int:
    return url_id if offer is not None and offer.has_landing_page(url_id) else 0


def _flags(state: EdgeState, request: Request) -> list[str]:
    flags = []
    headers = request.headers
    if request.method == "HEAD" or (not headers.is_plain and _is_prefetch(headers)):
        flags.append("prefetch")
    if request.params.get("url"):
        flags.append("deep_link_refused")
    if not headers.is_plain and state.honour_gpc and headers.get("Sec-GPC", "") == "1":
        flags.append("opted_out")
    return flags


def _is_prefetch(headers: Headers) -> bool:
    for name in _PREFETCH_HEADERS:
        purpose = headers.get(name, "")
        if purpose and any(word in purpose.lower() for word in _PREFETCH_WORDS):
            return True
    return False


def _provenance(request: Request) -> tuple[str, str]:
    """Referrer and language."""
    return (
        header_text(request.headers, "Referer", MAX_REFERRER_CHARS),
        header_text(request.headers, "Accept-Language", MAX_LANGUAGE_CHARS),
    )
