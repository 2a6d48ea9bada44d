"""What the macros of a partner's postback stand for: the conversion as it was told, its click, the catalog's names."""

import hashlib
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from edge.tracking.catalog import Catalog, OfferView
from edge.tracking.catalog_document import Partner
from edge.tracking.macros import OUR_NOTES
from edge.tracking.urls import encode_value

Row = Mapping[str, Any]


class Told(Protocol):
    """The conversion at the moment that is told: later changes of it are told by rows of their own."""

    @property
    def conversion_id(self) -> UUID: ...
    @property
    def status(self) -> str: ...
    @property
    def aff_id(self) -> int: ...
    @property
    def offer_id(self) -> int: ...
    @property
    def goal_id(self) -> int: ...
    @property
    def amount(self) -> Decimal: ...
    @property
    def payout(self) -> Decimal: ...
    @property
    def revenue(self) -> Decimal: ...
    @property
    def currency(self) -> str: ...


class Facts(NamedTuple):
    """Rows of `conversions` and of `clicks` (or `impressions`), {} where there is none, and the catalog in force."""

    told: Told
    conversion: Row
    click: Row
    catalog: Catalog

    @property
    def offer(self) -> OfferView | None:
        return self.catalog.offer(self.told.offer_id)

    @property
    def partner(self) -> Partner | None:
        return self.catalog.partner(self.told.aff_id)


Source = Callable[[Facts], object]


def _of_click(column: str) -> Source:
    return lambda facts: facts.click.get(column)


def _of_conversion(column: str) -> Source:
    return lambda facts: facts.conversion.get(column)


def _money(column: str) -> Source:
    def written(facts: Facts) -> str:
        """Exact, with two decimals or, where they say something, up to six: 5.00, 0.125."""
        whole, _, decimals = f"{getattr(facts.told, column):.6f}".partition(".")
        return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"

    return written


def _moment(pattern: str) -> Source:
    def written(facts: Facts) -> str:
        moment: datetime | None = facts.conversion.get("converted_at")
        return moment.astimezone(UTC).strftime(pattern) if moment else ""

    return written


def _transaction_id(facts: Facts) -> str:
    click_id: UUID | None = facts.conversion.get("click_id")
    return click_id.hex if click_id else facts.conversion.get("transaction_id", "")


def _goal_name(facts: Facts) -> str:
    goal = facts.offer.goals_by_id.get(facts.told.goal_id) if facts.offer else None
    return goal.name if goal else ""


def _advertiser_ref(facts: Facts) -> str:
    advertiser = facts.catalog.advertiser(facts.conversion.get("advertiser_id", 0))
    return advertiser.ref if advertiser else ""


def _file_name(facts: Facts) -> str:
    creatives = facts.offer.creatives if facts.offer else ()
    return next((one.name for one in creatives if one.id == facts.conversion.get("creative_id")), "")


def _extra(facts: Facts, name: str) -> str:
    return str(facts.click.get("extras", {}).get(name) or facts.conversion.get("extras", {}).get(name) or "")


def _sha1_of(name: str) -> Source:
    """As in offer URLs: lower-case hex."""

    def hashed(facts: Facts) -> str:
        value = _extra(facts, name)
        return hashlib.sha1(value.encode("utf-8", "replace"), usedforsecurity=False).hexdigest() if value else ""

    return hashed


def _extras(facts: Facts) -> str:
    extras = facts.click.get("extras", {})
    sent = ((name, value) for name, value in extras.items() if name not in OUR_NOTES)
    return "&".join(f"{encode_value(name)}={encode_value(value)}" for name, value in sent)


_SOURCES: dict[str, Source] = {
    "conversion_id": lambda facts: facts.told.conversion_id.hex,
    "status": lambda facts: facts.told.status,
    "offer_id": lambda facts: facts.told.offer_id,
    "aff_id": lambda facts: facts.told.aff_id,
    "goal_id": lambda facts: str(facts.told.goal_id),
    "currency": lambda facts: facts.told.currency,
    **{name: _money(name) for name in ("amount", "payout", "revenue")},
    "transaction_id": _transaction_id,
    "goal_name": _goal_name,
    "offer_name": lambda facts: facts.offer.name if facts.offer else "",
    "offer_ref": lambda facts: facts.offer.ref if facts.offer else "",
    "affiliate_name": lambda facts: facts.partner.name if facts.partner else "",
    "affiliate_ref": lambda facts: facts.partner.ref if facts.partner else "",
    "advertiser_id": _of_conversion("advertiser_id"),
    "advertiser_ref": _advertiser_ref,
    "url_id": _of_conversion("landing_page_id"),
    "file_id": _of_conversion("creative_id"),
    "file_name": _file_name,
    "ip": _of_conversion("ip"),
    **{f"adv_sub{number}": _of_conversion(f"adv_sub{number}") for number in range(1, 6)},
    **{name: _of_conversion(name) for name in ("conversion_unique_id", "promo_code")},
    "date": _moment("%Y-%m-%d"),
    "time": _moment("%H:%M:%S"),
    "datetime": _moment("%Y-%m-%d %H:%M:%S"),
    **{f"{name}_sha1": _sha1_of(name) for name in ("google_aid", "ios_ifa")},
    "session_ip": _of_click("ip"),
    "country_code": lambda facts: facts.click.get("country") or facts.conversion.get("country"),
    "region_code": _of_click("region"),
    "device_os": _of_click("os"),
    **{f"aff_sub{number}": _of_click(f"aff_sub{number}") for number in range(1, 6)},
    **{f"utm_{name}": _of_click(f"utm_{name}") for name in ("source", "medium", "campaign", "content", "term")},
    **{
        name: _of_click(name)
        for name in (
            "source aff_click_id contact_id city user_agent language device_type device_brand browser cost".split()  # noqa: SIM905
        )
    },
    "ran": lambda facts: random.randrange(10**9),
    "params": _extras,
}


def value_of(facts: Facts, name: str) -> str:
    """The macro's value by its canonical name; what has no column is looked for among the extras, the click's first."""
    source = _SOURCES.get(name)
    if source is None:
        return _extra(facts, name)
    value = source(facts)
    return "" if value in (None, 0) else str(value)


_TOLD = (
    "conversion_id", "transaction_id", "status", "offer_id", "goal_id", "goal_name", "aff_id", "amount", "payout",
    "currency", "datetime", "adv_sub1", "aff_click_id", "source", "aff_sub1", "aff_sub2", "aff_sub3", "aff_sub4",
    "aff_sub5",
)  # fmt: skip


def body_of(facts: Facts, told_at: datetime) -> dict[str, Any]:
    """What a POST tells: a Standard Webhooks event. Never what we earn. `told_at`: when the conversion came to this."""
    values = {name: value_of(facts, name) for name in _TOLD}
    return {
        "type": f"conversion.{facts.told.status}",
        "timestamp": told_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": {name: value for name, value in values.items() if value},
    }
