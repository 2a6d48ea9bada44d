"""What others than the network are shown of a row, and whose rows are whose."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from edge.tracking.timeline import Sight

Row = Mapping[str, Any]
Shown = dict[str, Any]

_PERSONAL = frozenset(("ip", "user_agent", "visitor", "first_click_id", "city"))
_OURS = frozenset(("tier", "catalog_revision", "node_id", "named_click_id", "cost", "actor", "note", "cause_params", "cause_id", "erased_at"))
_PARTNERS = frozenset(("referrer", "aff_click_id", "click_extras"))
_SHOPS = frozenset((*(f"adv_sub{number}" for number in range(1, 6)), "conversion_unique_id"))
_HIDDEN = {
    "partner": _PERSONAL | _OURS | _SHOPS | {"revenue", "revenue_delta", "revenue_after", "advertiser_id", "extras"},
    "advertiser": _PERSONAL | _OURS | {"payout", "payout_delta", "payout_after", *_PARTNERS},
}
"""Columns of clicks, conversions and changes. What a conversion's extras hold is the advertiser's, a click's the partner's."""


def is_theirs(row: Row, scope: str, advertiser_id: int, aff_id: int) -> bool:
    """Whether a caller of that scope may see the row at all."""
    if scope == "advertiser":
        return bool(advertiser_id) and row["advertiser_id"] == advertiser_id
    return scope != "partner" or (bool(aff_id) and row["aff_id"] == aff_id)


def sight_of(scope: str) -> Sight:
    """What that scope sees of a story; advertisers do not see what partners are told."""
    return Sight(_HIDDEN.get(scope, frozenset()), sees_postbacks=scope != "advertiser")


def shown(row: Row, scope: str) -> Shown:
    """The columns that this scope sees, as JSON can say them."""
    hidden = _HIDDEN.get(scope, frozenset())
    return {name: _plain(value) for name, value in row.items() if name not in hidden}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, IPv4Address | IPv6Address) else value
