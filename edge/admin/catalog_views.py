"""What of a catalog item each kind of caller sees. Partners and advertisers see what is listed here and nothing else."""

from collections.abc import Iterable
from typing import Any

from edge.admin.catalog_documents import Json, to_shown
from edge.tracking.catalog_document import Advertiser, Item, Offer, Partner

_TERMS = {"payout_type", "payout", "payout_percent"}
_PRICES = {"revenue_type", "revenue", "revenue_percent"}
_OFFER = {
    "id", "name", "preview_url", "status", "expires_at", "currency", "approval", "click_window", "impression_window",
    "min_seconds_to_convert", "attribution", "duplicates", "allowed_domains", "pixels", "cookies", "tracking", "time_zone", "caps",
    "goals", "landing_pages", "creatives",
}  # fmt: skip
_PARTNERS_OFFER = _OFFER | _TERMS | {"tiers", "overrides", "promo_codes"}
_ADVERTISERS_OFFER = _OFFER | _PRICES | {"advertiser_id", "url", "advertiser_sets_amounts", "redirect"}


def show_item(item: Item, scope: str, advertiser_id: int = 0, aff_id: int = 0) -> Json | None:
    """The item as a caller of that scope sees it; None: there is none for this one."""
    shown = to_shown(item)
    if scope in ("admin", "reports"):
        return shown
    if scope == "partner":
        return _for_partner(item, shown, aff_id)
    return _for_advertiser(item, shown, advertiser_id)


def _for_partner(item: Item, shown: Json, aff_id: int) -> Json | None:
    if isinstance(item, Partner) and item.id == aff_id:
        return _without(shown, ("ref",))
    if not isinstance(item, Offer):
        return None
    offer = _only(shown, _PARTNERS_OFFER)
    offer["caps"] = _caps_without(offer["caps"], "_revenue")
    offer["goals"] = [_without(goal, _PRICES) for goal in offer["goals"]]
    offer["landing_pages"] = [_only(page, ("id", "name")) for page in offer["landing_pages"]]
    offer["promo_codes"] = [promo for promo in offer["promo_codes"] if promo["aff_id"] == aff_id]
    offer["overrides"] = [
        {**_without(one, _PRICES), "caps": _caps_without(one["caps"], "_revenue")}
        for one in offer["overrides"]
        if one["aff_id"] == aff_id
    ]
    return offer


def _for_advertiser(item: Item, shown: Json, advertiser_id: int) -> Json | None:
    if isinstance(item, Advertiser) and item.id == advertiser_id:
        return _without(shown, ("ref",))
    if not isinstance(item, Offer) or item.advertiser_id != advertiser_id:
        return None
    offer = _only(shown, _ADVERTISERS_OFFER)
    offer["caps"] = _caps_without(offer["caps"], "_payout")
    offer["goals"] = [_without(goal, _TERMS) for goal in offer["goals"]]
    return offer


def _caps_without(caps: dict[str, Any], ending: str) -> dict[str, Any]:
    return {name: value for name, value in caps.items() if not name.endswith(ending)}


def _only(table: Json, names: Iterable[str]) -> Json:
    return {name: value for name, value in table.items() if name in set(names)}


def _without(table: Json, names: Iterable[str]) -> Json:
    return {name: value for name, value in table.items() if name not in set(names)}
