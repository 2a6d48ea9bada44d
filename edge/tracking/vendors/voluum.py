"""Voluum: doc.voluum.com, "Parameters in Postback URLs". Campaign links are plain aliases: `/{uuid}`."""

from edge.tracking.vendors.row import Reply, Row, Vendor, numbered

VOLUUM = Vendor(
    "voluum",
    "Voluum",
    (
        Row(
            "/postback",
            "postback",
            ("cid",),
            {
                "cid": "transaction_id",
                "payout": "revenue amount",
                "txid": "adv_unique1",
                "et": "goal_name",
                **numbered("param", "adv_sub"),
            },
            reply=Reply("OK", "ERROR: {problem}", assumed="both"),
        ),
    ),
)
