"""Post Affiliate Pro: support.qualityunit.com, "Pixel tracking (HTML image)"."""

from edge.tracking.vendors.row import WHOLE, Row, Statuses, Vendor, numbered

_CLICK = {
    "a_aid": "aff_id",
    "a_bid": "file_id",
    "chan": "source",
    "desturl": "url",
    **numbered("data", "aff_sub", 2),
}

POST_AFFILIATE_PRO = Vendor(
    "post_affiliate_pro",
    "Post Affiliate Pro",
    (
        Row(
            "/scripts/sale.php",
            "pixel",
            names={
                "visitorId": "transaction_id",
                "TotalCost": "amount",
                "Currency": "currency",
                "OrderID": "adv_unique1",
                "ActionCode": "goal_name",
                "Coupon": "promo_code",
                "Commission": "payout",
                "AffiliateID": "aff_id",
                **numbered("data", "adv_sub"),
            },
            statuses=Statuses("PStatus", {"a": "approved", "p": "pending", "d": "rejected"}),
            aliases={"CampaignID": WHOLE, "ProductID": WHOLE, "AccountId": WHOLE, "AffiliateID": "aff_id"},
            methods=frozenset(("GET", "POST")),
        ),
        Row(
            "/scripts/click.php",
            "click",
            ("a_aid",),
            _CLICK,
            aliases={"a_bid": WHOLE, "a_cid": WHOLE, "a_aid": "aff_id"},
        ),
        Row("/", "click", ("a_aid",), _CLICK, aliases={"a_bid": WHOLE, "a_cid": WHOLE, "a_aid": "aff_id"}),
    ),
)
