"""TUNE (HasOffers): the native dialect, so nothing is translated."""

from edge.tracking.vendors.row import Row, Vendor

TUNE = Vendor(
    "tune",
    "TUNE (HasOffers)",
    (
        Row("/aff_c", "click"),
        Row("/aff_i", "impression"),
        Row("/aff_lsr", "postback"),
        Row("/aff_goal", "goal_postback", ("a=lsr",)),
        Row("/aff_goal", "goal_pixel", ("a=l",)),
        Row("/aff_l", "pixel"),
        Row("/clk", "direct_click"),
    ),
)
