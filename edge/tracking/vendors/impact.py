"""Impact: integrations.impact.com, "Submit a conversion". Its parameters are case-sensitive."""

from edge.tracking.vendors.row import WHOLE, Items, Reply, Row, Sent, Vendor, numbered

IMPACT = Vendor(
    "impact",
    "impact.com",
    (
        Row(
            "/c/{mpid}/{adid}/{campaignid}",
            "click",
            names={
                "mpid": "aff_id",
                "adid": "file_id",
                "campaignid": "offer_id",
                "sharedid": "source",
                "u": "url",
                **numbered("subId", "aff_sub"),
            },
            aliases={"campaignid": WHOLE, "mpid": "aff_id"},
        ),
        Row(
            "/Advertisers/{account}/Conversions",
            "postback",
            names={
                "ClickId": "transaction_id",
                "ActionTrackerId": "goal_id",
                "EventTypeId": "goal_id",
                "EventTypeCode": "goal_name",
                "OrderId": "adv_unique1",
                "Oid": "adv_unique1",
                "Amount": "amount",
                "OrderSubtotal": "amount",
                "CurrencyCode": "currency",
                "Currency": "currency",
                "OrderPromoCode": "promo_code",
                "CustomerId": "contact_id",
                "EventDate": "datetime",
                "IpAddress": "ip",
                "CustomerEmail": "",
            },
            aliases={"CampaignId": WHOLE},
            items=Items("ItemPrice", "ItemQuantity", ("ItemSubtotal", "ItemSubTotal"), "OrderDiscount"),
            authorization="basic",
            methods=frozenset(("POST",)),
            reply=Reply(
                {"Status": "QUEUED"},
                {"Status": "ERROR", "Message": Sent("problem")},
                failure_status=400,
                assumed="both",
            ),
        ),
    ),
)
