"""CAKE: support.getcake.com, "Understanding the CAKE Conversion Pixel" and "Server-to-Server Tracking"."""

from edge.tracking.vendors.row import WHOLE, Reply, Row, Vendor, numbered

_CLICK = {"a": "aff_id", "c": "file_id", "o": "offer_id", **numbered("s", "aff_sub")}
_CONVERSION = {
    "o": "offer_id",
    "e": "goal_id",
    "r": "transaction_id",
    "t": "adv_unique1",
    "ap": "payout",
    "ect": "amount",
    "p": "revenue amount",
    "u": "contact_id",
}

CAKE = Vendor(
    "cake",
    "CAKE",
    (
        Row("/", "click", ("a", "c"), _CLICK, aliases={"c": WHOLE, "a": "aff_id"}),
        Row(
            "/p.ashx",
            "postback",
            ("f=pb",),
            _CONVERSION,
            aliases={"o": WHOLE},
            # Public senders look for the word.
            reply=Reply("SUCCESS", "ERROR: {problem}", assumed="both"),
        ),
        Row("/p.ashx", "pixel", ("f=js",), _CONVERSION, aliases={"o": WHOLE}, defaults={"format": "js"}),
        Row("/p.ashx", "pixel", (), _CONVERSION, aliases={"o": WHOLE}),
    ),
)
