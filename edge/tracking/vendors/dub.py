"""Dub: dub.co/docs/api-reference/track. JSON by POST; amounts in the currency's smallest unit.

The replies to leads and sales are those that its own Python client reads, 0.39.0 of 2026-11.
"""

from edge.tracking.vendors.row import WHOLE, Reply, Row, Sent, Vendor

_POST = frozenset(("POST",))
_CUSTOMER = {
    "name": Sent("customerName"),
    "email": Sent("customerEmail"),
    "avatar": Sent("customerAvatar"),
    "externalId": Sent("customerExternalId"),
}
_ERROR = {"error": {"code": "not_found", "message": Sent("problem")}}
_NAMES = {
    "clickId": "transaction_id",
    "customerExternalId": "contact_id",
    "externalId": "contact_id",
    "eventName": "goal_name",
    "customerName": "",
    "customerEmail": "",
    "customerAvatar": "",
}

DUB = Vendor(
    "dub",
    "Dub",
    (
        Row(
            "/track/click",
            "direct_click",
            names={"url": "landing_url"},
            aliases={"key": WHOLE},
            methods=_POST,
            is_cors=True,
            reply=Reply({"clickId": Sent("click_id")}, _ERROR, failure_status=404, assumed="both"),
        ),
        Row(
            "/track/lead",
            "postback",
            names=_NAMES,
            authorization="bearer",
            methods=_POST,
            reply=Reply(
                {"click": {"id": Sent("clickId")}, "link": None, "customer": _CUSTOMER},
                _ERROR,
                failure_status=404,
            ),
        ),
        Row(
            "/track/sale",
            "postback",
            names={**_NAMES, "invoiceId": "adv_unique1"},
            authorization="bearer",
            defaults={"currency": "usd"},
            is_minor=True,
            methods=_POST,
            reply=Reply(
                {
                    "eventName": Sent("eventName"),
                    # Its clients insist on an id; the customer's own is the one that both sides know.
                    "customer": {"id": Sent("customerExternalId"), **_CUSTOMER},
                    "sale": {
                        "amount": Sent("amount", is_number=True),
                        "currency": Sent("currency"),
                        "paymentProcessor": Sent("paymentProcessor"),
                        "invoiceId": Sent("invoiceId"),
                        "metadata": None,
                    },
                },
                _ERROR,
                failure_status=404,
            ),
        ),
    ),
)
