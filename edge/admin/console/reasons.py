"""Why a conversion is not approved, in words."""

from edge.tracking.changes import CHANGE_REASONS
from edge.tracking.status_codes import REJECTIONS

_WORDS = {
    "forged_id": "the id is not ours",
    "unknown_click": "no such click",
    "unknown_offer": "the offer is not in the catalog",
    "pixel_refused": "browser pixels do not count",
    "bad_token": "wrong or no security token",
    "ip_not_allowed": "from an address that is not allowed",
    "offer_inactive": "the offer had expired",
    "unknown_partner": "the partner is not in the catalog",
    "partner_blocked": "the partner is blocked",
    "outside_window": "too late after the click",
    "too_soon": "too soon after the click",
    "unknown_goal": "the offer has no such goal",
    "invalid_amount": "an amount that is none",
    "currency_mismatch": "an amount in another currency",
    "duplicate": "an earlier conversion is the same",
    "capped": "beyond a cap",
    "advertiser": "the advertiser said so",
    "bad_signature": "wrong or no signature",
    "replayed": "a signature that was used before",
    "returned": "goods returned",
    "cancelled": "order cancelled",
    "fraud": "fraud",
    "test_order": "a test order",
    "wrong_amount": "the amount was wrong",
    "agreed_correction": "agreed with the partner",
    "other": "another reason",
}
REASONS = {name: _WORDS.get(name, name.replace("_", " ")) for name in dict.fromkeys((*REJECTIONS, *CHANGE_REASONS))}
"""All there are, by name."""


def in_words(reason: str) -> str:
    """A reason as people say it."""
    return REASONS.get(reason, reason.replace("_", " "))
