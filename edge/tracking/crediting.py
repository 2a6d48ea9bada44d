"""Who is credited: what else than a click's id may name somebody, and which touch of one visitor counts. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from edge.tracking.catalog import OfferView
from edge.tracking.catalog_document import PromoCode
from edge.tracking.parameters import to_id

_EXTERNAL_ID = re.compile(r"[A-Za-z0-9._~-]{1,64}", re.ASCII)


class Credit(NamedTuple):
    """A partner credited without a click, and what named him."""

    aff_id: int
    by: Literal["partner_id", "promo_code"]


class Candidate(NamedTuple):
    """A click that a conversion may be credited to; its own revision's window in seconds."""

    click_id: bytes
    ms: int
    window_s: int


def is_external_id(text: str) -> bool:
    """Whether `text` may be a custom id (`ad_id`) or another network's transaction id."""
    return _EXTERNAL_ID.fullmatch(text) is not None


def find_promo(offer: OfferView | None, params: Mapping[str, str]) -> PromoCode | None:
    """The offer's promo code that was sent, in whatever case."""
    code = params.get("promo_code")
    return offer.promo_by_code.get(code.casefold()) if offer and code else None


def credit_without_click(offer: OfferView | None, params: Mapping[str, str]) -> Credit | None:
    """The partner whom a postback names without a click: by his id where the offer tracks so, else by promo code."""
    if offer is None:
        return None
    if offer.tracking == "partner_id" and (aff_id := to_id(params.get("aff_id", ""))):
        return Credit(aff_id, "partner_id")
    promo = find_promo(offer, params)
    return Credit(promo.aff_id, "promo_code") if promo else None


def names_partner(offer: OfferView | None, params: Mapping[str, str]) -> bool:
    """Whether the offer is tracked by the partner's id and one was sent: then no click is looked for."""
    return offer is not None and offer.tracking == "partner_id" and to_id(params.get("aff_id", "")) > 0


def choose(candidates: Iterable[Candidate], touch: Literal["first", "last"], converted_ms: int) -> bytes:
    """The first or last click whose window holds the conversion; empty if there is none."""
    fitting = [one.click_id for one in candidates if converted_ms - one.ms <= one.window_s * 1000]
    return (min if touch == "first" else max)(fitting, default=b"")
