"""RedTrack: help.redtrack.io (dynamic parameters), docs.redtrack.io (event types). Links are plain aliases: `/{id}`."""

from edge.tracking.vendors.row import Reply, Row, Statuses, Vendor, numbered

REDTRACK = Vendor(
    "redtrack",
    "RedTrack",
    (
        Row(
            "/postback",
            "postback",
            ("clickid",),
            {
                "clickid": "transaction_id",
                "sum": "revenue amount",
                "type": "goal_name",
                "rdtk_event_id": "adv_unique1",
                **numbered("event_sub", "adv_sub"),
            },
            statuses=Statuses("status", {"approved": "approved", "pending": "pending", "declined": "rejected"}),
            reply=Reply("OK", "ERROR: {problem}", assumed="both"),
        ),
    ),
)
