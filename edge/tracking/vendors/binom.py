"""Binom: docs.binom.org, "Postback URL" and "Click update". One path for clicks and postbacks; `/click` since version 2."""

from edge.tracking.vendors.row import WHOLE, Reply, Row, Statuses, Vendor, numbered

_POSTBACK = {"cnv_id": "transaction_id", "payout": "revenue amount", "cnv_currency": "currency"}
_UPDATE = {"upd_clickid": "transaction_id", "upd_key": "security_token", "payout": "revenue amount"}
_CLICK = {"camp_id": "offer_id", **numbered("t", "aff_sub")}
_STATUSES = Statuses(
    "cnv_status",
    {
        "approve": "approved",
        "approved": "approved",
        "hold": "pending",
        "pending": "pending",
        "reject": "rejected",
        "rejected": "rejected",
    },
)
_EVENTS = tuple(f"event{number}" for number in range(1, 31))
_SAID = Reply("OK", "ERROR: {problem}", assumed="both")


def _rows(path: str) -> tuple[Row, ...]:
    return (
        Row(path, "postback", ("cnv_id",), _POSTBACK, _STATUSES, reply=_SAID),
        Row(path, "goal_postback", ("upd_clickid",), _UPDATE, _STATUSES, goals=_EVENTS, reply=_SAID),
        Row(path, "click", ("key",), _CLICK, aliases={"key": WHOLE, "camp_id": WHOLE}),
        Row(path, "click", ("camp_id",), _CLICK, aliases={"camp_id": WHOLE}),
    )


BINOM = Vendor("binom", "Binom", (*_rows("/click.php"), *_rows("/click")))
