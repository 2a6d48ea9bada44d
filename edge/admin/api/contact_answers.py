"""Contacts and their journeys as the API answers them."""

from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import msgspec

from storage.postgres.journeys import Contact, Journey
from storage.postgres.listing.contacts import ContactPage


class First(msgspec.Struct, frozen=True):
    """A contact's first or last click."""

    clicked_at: datetime
    utm_source: str
    utm_medium: str
    utm_campaign: str
    utm_content: str
    utm_term: str


class Money(msgspec.Struct, frozen=True):
    """What a contact brought in, in one currency: approved conversions, and what its clicks and views earned."""

    currency: str
    conversions: int
    amount: Decimal
    revenue: Decimal
    payout: Decimal


class ContactAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A contact, for life. `sends`: as it was imported; null where nobody said. `clicks`: without invalid ones."""

    contact_id: str
    list_: str = msgspec.field(name="list")
    signed_up_at: datetime | None
    first_seen_at: datetime | None
    first_click_id: str | None
    sends: int | None
    impressions: int
    gross_clicks: int
    clicks: int
    conversions: int
    money: list[Money]
    first: First | None
    last: First | None
    extras: dict[str, Any]


class ContactsPage(msgspec.Struct, frozen=True):
    """One page of contacts."""

    data: list[ContactAnswer]
    next_cursor: str | None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A click, an impression or a conversion. `status`: a conversion's own, else the outcome."""

    kind: Literal["click", "impression", "conversion"]
    at: datetime
    id: str
    click_id: str | None
    offer_id: int
    aff_id: int
    goal_id: int
    landing_page_id: int
    creative_id: int
    source: str
    utm_source: str
    utm_medium: str
    utm_campaign: str
    utm_content: str
    utm_term: str
    referrer: str
    country: str
    device_type: str
    flags: list[str]
    status: str
    reason: str
    promo_code: str
    currency: str
    amount: Decimal
    revenue: Decimal
    payout: Decimal
    extras: dict[str, Any]


class JourneyPage(msgspec.Struct, frozen=True):
    """One page of a journey, oldest first."""

    data: list[Step]
    next_cursor: str | None


def answer_page(page: ContactPage) -> ContactsPage:
    """A page as it is answered."""
    return ContactsPage([answer_contact(one) for one in page.contacts], page.next_cursor)


def answer_contact(one: Contact) -> ContactAnswer:
    """A contact as it is answered."""
    figures = one.figures
    sends = one.extras.get("sends")
    return ContactAnswer(
        contact_id=one.contact_id,
        list_=one.list,
        signed_up_at=one.signed_up_at,
        first_seen_at=one.first_seen_at,
        first_click_id=one.first_click_id.hex if one.first_click_id else None,
        sends=_count(sends),
        impressions=figures.impressions,
        gross_clicks=figures.gross_clicks,
        clicks=figures.clicks,
        conversions=figures.conversions,
        money=[Money(*earned) for earned in figures.money],
        first=First(**one.first) if one.first else None,
        last=First(**figures.last) if figures.last else None,
        extras=one.extras,
    )


def _count(value: Any) -> int | None:
    """An imported count, which may be text."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None


def answer_journey(found: Journey) -> JourneyPage:
    """A page of a journey as it is answered."""
    return JourneyPage([_step(event) for event in found.events], found.next_cursor)


def _step(event: dict[str, Any]) -> Step:
    click_id = event["click_id"]
    return Step(**{**event, "id": event["id"].hex, "click_id": click_id.hex if click_id else None})
