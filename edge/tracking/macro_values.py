"""What the macros of a click's URL stand for. Only those that the template names are worked out."""

import hashlib
import random
from collections.abc import Callable
from datetime import UTC, datetime

from edge.tracking.catalog import OfferView
from edge.tracking.headers import first_language
from edge.tracking.macros import OUR_NOTES, Template, encode_macro
from edge.tracking.request import Request
from edge.tracking.state import EdgeState
from edge.tracking.surroundings import Device, Place
from edge.tracking.urls import encode_value
from storage.journal.events import Session

Source = Callable[[OfferView | None, Session, Request, EdgeState], str]

_NAMED = OUR_NOTES | {"offer_id", "aff_id", "aff_sub1", "source", "url_id", "file_id", "transaction_id"}


def _at(pattern: str) -> Source:
    return lambda offer, session, request, state: datetime.fromtimestamp(request.received_ms / 1000, UTC).strftime(
        pattern
    )


def _partner_name(offer: OfferView | None, session: Session, request: Request, state: EdgeState) -> str:
    partner = state.catalog.partner(session.aff_id)
    return partner.name if partner else ""


def _partner_ref(offer: OfferView | None, session: Session, request: Request, state: EdgeState) -> str:
    partner = state.catalog.partner(session.aff_id)
    return partner.ref if partner else ""


def _advertiser_ref(offer: OfferView | None, session: Session, request: Request, state: EdgeState) -> str:
    advertiser = state.catalog.advertiser(offer.advertiser_id) if offer else None
    return advertiser.ref if advertiser else ""


def _file_name(offer: OfferView | None, session: Session, request: Request, state: EdgeState) -> str:
    creatives = offer.creatives if offer else ()
    return next((creative.name for creative in creatives if creative.id == session.creative_id), "")


def _sha1_of(name: str) -> Source:
    """The lower-case hex SHA-1 of a parameter: what networks match device ids by."""

    def hashed(offer: OfferView | None, session: Session, request: Request, state: EdgeState) -> str:
        value = request.params.get(name, "")
        return hashlib.sha1(value.encode(), usedforsecurity=False).hexdigest() if value else ""

    return hashed


def _payout(offer: OfferView | None, session: Session, request: Request, state: EdgeState) -> str:
    return f"{offer.terms(0, session.aff_id).payout:f}" if offer else ""


def _revenue(offer: OfferView | None, session: Session, request: Request, state: EdgeState) -> str:
    return f"{offer.terms(0, session.aff_id).revenue:f}" if offer else ""


def _extras(offer: OfferView | None, session: Session, request: Request, state: EdgeState) -> str:
    return "&".join(
        f"{encode_value(name)}={encode_value(value)}" for name, value in request.params.items() if name not in _NAMED
    )


def _of_device(fact: Callable[[Device], str]) -> Source:
    return lambda offer, session, request, state: fact(state.enrichment.device(session.user_agent))


def _of_place(fact: Callable[[Place], str]) -> Source:
    return lambda offer, session, request, state: fact(state.enrichment.place(session.ip))


# What can only be digits and small letters: it stands in a URL as it is.
_TOKENS: dict[str, Callable[[Session], str]] = {
    "offer_id": lambda session: str(session.offer_id or ""),
    "aff_id": lambda session: str(session.aff_id or ""),
    "url_id": lambda session: str(session.landing_page_id or ""),
    "file_id": lambda session: str(session.creative_id or ""),
}
_SOURCES: dict[str, Source] = {
    "offer_name": lambda offer, session, request, state: offer.name if offer else "",
    "offer_ref": lambda offer, session, request, state: offer.ref if offer else "",
    "advertiser_ref": _advertiser_ref,
    "advertiser_id": lambda offer, session, request, state: str(offer.advertiser_id) if offer else "",
    "affiliate_name": _partner_name,
    "affiliate_ref": _partner_ref,
    "file_name": _file_name,
    "google_aid_sha1": _sha1_of("google_aid"),
    "ios_ifa_sha1": _sha1_of("ios_ifa"),
    "currency": lambda offer, session, request, state: offer.currency if offer else "",
    "payout": _payout,
    "revenue": _revenue,
    "ip": lambda offer, session, request, state: session.ip,
    "session_ip": lambda offer, session, request, state: session.ip,
    "user_agent": lambda offer, session, request, state: session.user_agent,
    "date": _at("%Y-%m-%d"),
    "time": _at("%H:%M:%S"),
    "datetime": _at("%Y-%m-%d %H:%M:%S"),
    "ran": lambda offer, session, request, state: str(random.randrange(10**9)),
    "params": _extras,
    "language": lambda offer, session, request, state: first_language(request.headers.language),
    "device_type": _of_device(lambda device: device.device_type),
    "device_brand": _of_device(lambda device: device.device_brand),
    "device_model": _of_device(lambda device: device.device_model),
    "device_os": _of_device(lambda device: device.os),
    "device_os_version": _of_device(lambda device: device.os_version),
    "browser": _of_device(lambda device: device.browser),
    "country_code": _of_place(lambda place: place.country),
    "region_code": _of_place(lambda place: place.region),
    "city": _of_place(lambda place: place.city),
}


def locate(
    template: Template, offer: OfferView | None, session: Session, id_text: str, request: Request, state: EdgeState
) -> str:
    """Where a click goes: for each macro our own value, else the click's parameter of that name."""
    params = request.params
    pieces = template.pieces.copy()
    for index, name in template.slots:
        if name == "transaction_id":
            pieces[index] = id_text
            continue
        token = _TOKENS.get(name)
        if token is not None:
            pieces[index] = token(session)
            continue
        source = _SOURCES.get(name)
        value = source(offer, session, request, state) if source else params.get(name)
        if value:  # most are plain words, which need no encoding
            pieces[index] = value if value.isalnum() and value.isascii() else encode_macro(name, value)
    return "".join(pieces)
