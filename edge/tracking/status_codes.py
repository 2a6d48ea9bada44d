"""The number beside a conversion's status and reason: TUNE's where TUNE has one, ours from 201 up.

docs/status-codes.md is `as_markdown()`; a test keeps them equal.
"""

from typing import Literal, NamedTuple, get_args

from storage.journal.events import Via

Status = Literal["approved", "pending", "rejected", "reversed"]
Reason = Literal[
    "",
    "forged_id",
    "unknown_click",
    "unknown_offer",
    "pixel_refused",
    "bad_token",
    "ip_not_allowed",
    "offer_inactive",
    "unknown_partner",
    "partner_blocked",
    "outside_window",
    "too_soon",
    "unknown_goal",
    "invalid_amount",
    "currency_mismatch",
    "duplicate",
    "capped",
    "advertiser",
    "bad_signature",
    "replayed",
]
REJECTIONS: tuple[Reason, ...] = get_args(Reason)[1:]

DUPLICATE = 12
DUPLICATE_UNIQUE_ID = 18
PENDING = 31
PENDING_CAPPED = 216
APPROVED: dict[Via, int] = {"pixel": 41, "postback": 43, "import": 217}
LATER: dict[Status, int] = {"rejected": 213, "reversed": 214, "approved": 215}
"""The code of a conversion whose status was changed after its first decision."""


class StatusCode(NamedTuple):
    """One row of the table."""

    code: int
    status: Status
    reason: Reason
    meaning: str
    is_tune: bool = True


STATUS_CODES: tuple[StatusCode, ...] = (
    StatusCode(DUPLICATE, "rejected", "duplicate", "an earlier conversion holds the same click and goal, or event id"),
    StatusCode(14, "rejected", "ip_not_allowed", "the postback's address is not among the advertiser's `allowed_ips`"),
    StatusCode(15, "rejected", "pixel_refused", "a browser pixel, and the offer says `pixels = false`"),
    StatusCode(17, "rejected", "capped", "a cap of the offer or the partner was reached"),
    StatusCode(DUPLICATE_UNIQUE_ID, "rejected", "duplicate", "an earlier conversion holds the `conversion_unique_id`"),
    StatusCode(19, "rejected", "bad_token", "the postback's `security_token` is missing or wrong"),
    StatusCode(PENDING, "pending", "", "`approval` is `manual`, or the advertiser said so: it is still to be decided"),
    StatusCode(APPROVED["pixel"], "approved", "", "approved, by a browser pixel"),
    StatusCode(APPROVED["postback"], "approved", "", "approved, by a server postback"),
    StatusCode(201, "rejected", "forged_id", "the `transaction_id` was not minted here, or was mistyped", False),
    StatusCode(
        202,
        "rejected",
        "unknown_click",
        "the id is genuine, but no such click was ever stored; or nothing else led to one",
        False,
    ),
    StatusCode(203, "rejected", "unknown_offer", "the click's offer or its advertiser is not in the catalog", False),
    StatusCode(204, "rejected", "offer_inactive", "the offer had expired when the conversion happened", False),
    StatusCode(205, "rejected", "unknown_partner", "the click's partner is not in the catalog", False),
    StatusCode(206, "rejected", "partner_blocked", "the click's partner is blocked", False),
    StatusCode(207, "rejected", "outside_window", "later after the click than its `click_window`", False),
    StatusCode(208, "rejected", "too_soon", "sooner after the click than `min_seconds_to_convert`", False),
    StatusCode(209, "rejected", "unknown_goal", "the offer has no such goal", False),
    StatusCode(210, "rejected", "invalid_amount", "an amount is no plain decimal, or too large to store", False),
    StatusCode(211, "rejected", "currency_mismatch", "the money depends on an amount in another currency", False),
    StatusCode(212, "rejected", "advertiser", "the advertiser sent it as rejected or reversed", False),
    StatusCode(LATER["rejected"], "rejected", "", "rejected later: `reason` is that of the change", False),
    StatusCode(LATER["reversed"], "reversed", "", "approved, then taken back: `reason` is that of the change", False),
    StatusCode(LATER["approved"], "approved", "", "approved later, by a person or by the advertiser", False),
    StatusCode(
        PENDING_CAPPED, "pending", "capped", "beyond a cap, and the offer says `cap_conversions = pending`", False
    ),
    StatusCode(APPROVED["import"], "approved", "", "approved, from an imported file", False),
    StatusCode(220, "rejected", "bad_signature", "the postback's `signature` or `timestamp` is missing or wrong", False),
    StatusCode(221, "rejected", "replayed", "an earlier conversion came with this very `signature`", False),
)

_REJECTED: dict[Reason, int] = {
    row.reason: row.code
    for row in STATUS_CODES
    if row.reason and row.code not in (DUPLICATE_UNIQUE_ID, PENDING_CAPPED)
}


def rejection_code(reason: Reason) -> int:
    """The code of a rejection; a duplicate's is the one by click."""
    return _REJECTED[reason]


def as_markdown() -> str:
    """The table as the page in docs/."""
    rows = (
        f"| {row.code} | {'TUNE' if row.is_tune else 'ClickEdge'} | {row.status} | {_code(row.reason)} | {row.meaning} |"
        for row in STATUS_CODES
    )
    return "\n".join([*_PAGE_HEAD, *rows, ""])


def _code(reason: Reason) -> str:
    return f"`{reason}`" if reason else ""


_PAGE_HEAD = (
    "# Conversion status codes",
    "",
    "`conversions.status_code` says why a conversion has the status it was given. Numbers below 200 are TUNE's, with",
    "TUNE's meaning; those from 201 up are ours, for reasons that TUNE has no number for.",
    "",
    "| code | from | status | reason | meaning |",
    "|---|---|---|---|---|",
)
