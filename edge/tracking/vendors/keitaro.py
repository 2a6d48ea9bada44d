"""Keitaro: docs.keitaro.io, "Postback". Campaign links are plain aliases."""

from edge.tracking.vendors.row import Reply, Row, Statuses, Vendor, numbered

KEITARO = Vendor(
    "keitaro",
    "Keitaro",
    (
        Row(
            "/{key}/postback",
            "postback",
            names={
                "key": "security_token",
                "subid": "transaction_id",
                "payout": "revenue amount",
                "revenue": "revenue amount",
                "tid": "adv_unique1",
                **numbered("sub_id_", "adv_sub"),
            },
            statuses=Statuses(
                "status",
                {"lead": "pending", "sale": "approved", "rebill": "approved", "rejected": "rejected"},
                {"sale_status": "sale", "lead_status": "lead", "rejected_status": "rejected"},
                ("ignore_status", "ignore"),
            ),
            reply=Reply("Success", "Error: {problem}", said_by="return", assumed="both"),
        ),
    ),
)
