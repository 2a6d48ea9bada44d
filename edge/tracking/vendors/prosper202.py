"""Prosper202: github.com/tracking202/prosper202, `tracking202/redirect` and `tracking202/static`, and the pages that show its URLs."""

from edge.tracking.vendors.row import WHOLE, Reply, Row, Sent, Vendor, numbered

_CLICK = {"t202id": "offer_id", "t202b": "cost", **numbered("c", "aff_sub", 4)}
# `transaction_id` is the shop's here; of its names for that the one further up wins.
_CONVERSION = {
    "subid": "transaction_id",
    "sid": "transaction_id",
    "amount": "revenue amount",
    "txid": "adv_unique1",
    "t202txid": "adv_unique1",
    "transaction_id": "adv_unique1",
    "transactionid": "adv_unique1",
    "order_id": "adv_unique1",
    "orderid": "adv_unique1",
    "oid": "adv_unique1",
}
_PIXEL = {**_CONVERSION, "cid": "offer_id"}

PROSPER202 = Vendor(
    "prosper202",
    "Prosper202",
    (
        Row("/tracking202/redirect/dl.php", "click", ("t202id",), _CLICK, aliases={"t202id": WHOLE}),
        Row("/tracking202/redirect/rtr.php", "click", ("t202id",), _CLICK, aliases={"t202id": WHOLE}),
        Row("/tracking202/static/ipx.php", "impression", ("t202id",), _CLICK, aliases={"t202id": WHOLE}),
        Row(
            "/tracking202/static/gpb.php",
            "postback",
            names=_CONVERSION,
            reply=Reply(
                {"error": False, "code": 202, "msg": "Postback successful"},
                {"error": True, "code": 404, "msg": Sent("problem")},
                success_status=202,
                failure_status=404,
                assumed="failure",
            ),
        ),
        Row("/tracking202/static/gpx.php", "pixel", names=_PIXEL, aliases={"cid": WHOLE}),
        Row("/tracking202/static/upx.php", "pixel", names=_PIXEL, aliases={"cid": WHOLE}, defaults={"format": "js"}),
    ),
)
