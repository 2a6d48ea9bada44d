"""Everflow: developers.everflow.io/sdk/server-side-click-tracking, helpdesk.everflow.io (S2S postback URLs)."""

from edge.tracking.vendors.row import WHOLE, Reply, Row, Sent, Vendor, numbered

_CLICK = {
    "oid": "offer_id",
    "affid": "aff_id",
    "uid": "url_id",
    "creative_id": "file_id",
    "source_id": "source",
    "coupon_code": "promo_code",
    "user_id": "contact_id",
    "idfa": "ios_ifa",
    **numbered("sub", "aff_sub"),
}
_POSTBACK = {
    "oid": "offer_id",
    "affid": "aff_id",
    "event_id": "goal_id",
    "adv_event_id": "goal_name",
    "order_id": "adv_unique1",
    "coupon_code": "promo_code",
    "verification_token": "security_token",
    "timestamp": "datetime",
    "email": "",
    **numbered("adv", "adv_sub"),
}
# Senders look for the word; what a refusal looks like is documented nowhere.
_SAID = Reply("SUCCESS", "ERROR: {problem}", assumed="both")
_DIRECT = Reply(
    {
        "aid": Sent("affid", is_number=True),
        "error_code": 0,
        "oid": Sent("oid", is_number=True),
        "session_duration": Sent("window_hours", is_number=True),
        "transaction_id": Sent("click_id"),
    },
    {"error_code": 1, "error": Sent("problem")},
    failure_status=404,
    assumed="failure",
)

EVERFLOW = Vendor(
    "everflow",
    "Everflow",
    (
        Row("/clk", "direct_click", ("oid",), _CLICK, aliases={"oid": WHOLE, "affid": "aff_id"}, reply=_DIRECT),
        Row("/", "postback", ("nid", "transaction_id"), _POSTBACK, reply=_SAID),
        Row("/", "postback", ("transaction_id",), _POSTBACK, reply=_SAID),
        Row("/{affid}/{oid}", "click", (), _CLICK, aliases={"oid": WHOLE, "affid": "aff_id"}, must_resolve=True),
    ),
)
