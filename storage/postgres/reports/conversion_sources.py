"""Conversions as sources: by the changes that booked them, and as they are now by the time of their touch."""

from storage.postgres.converted_clicks import FIELDS
from storage.postgres.reports.sources import (
    CHANGES,
    CREDITS,
    Column,
    Component,
    Source,
    person_join,
    touch_columns,
)

# Each conversion finds its touch by a look-up of its own, never by reading all clicks: LIMIT keeps the planner to that.
TOUCH_FIELDS = FIELDS
_KNOWN = ", ".join(f"known.{name}" for name in FIELDS.split(", "))
TOUCH_JOIN = (
    " LEFT JOIN converted_clicks AS known ON known.click_id = conversion.click_id"
    f" LEFT JOIN LATERAL (SELECT {_KNOWN} WHERE known.click_id IS NOT NULL"
    f" UNION ALL SELECT {TOUCH_FIELDS} FROM clicks WHERE known.click_id IS NULL AND click_id = conversion.click_id"
    f" UNION ALL SELECT {TOUCH_FIELDS} FROM impressions WHERE known.click_id IS NULL"
    " AND click_id = conversion.click_id LIMIT 1) AS touch ON true"
)
OWN = {
    "advertiser": Column("conversion.advertiser_id"),
    "offer": Column("conversion.offer_id"),
    "partner": Column("conversion.aff_id"),
    "goal": Column("conversion.goal_id"),
    "landing_page": Column("conversion.landing_page_id"),
    "creative": Column("conversion.creative_id"),
    "country": Column("conversion.country"),
    "device": Column("conversion.device_type"),
    "contact": Column("conversion.contact_id"),
    "status": Column("conversion.status"),
    "promo_code": Column("conversion.promo_code"),
    "currency": Column("conversion.currency"),
}
_COUNTED = {"conversions": "approved", "pending": "pending", "rejected": "rejected", "reversed": "reversed"}
MONEY = ("amount", "payout", "revenue")


def change_sums(weight: str = "") -> dict[str, Component]:
    """What changes add up to, each times `weight`."""
    times = f" * {weight}" if weight else ""
    sums = {name: f"change.{name}_delta" for name in ("conversions", "pending", "rejected", *MONEY)}
    sums["reversed"] = "((change.status_after = 'reversed')::int - (change.status_before = 'reversed')::int)"
    return {name: Component(CHANGES, f"sum({sql}{times})") for name, sql in sums.items()}


def credit_sums(weight: str = "") -> dict[str, Component]:
    """What conversions as they are now add up to, each times `weight`."""
    sums = {
        name: f"{f'sum({weight})' if weight else 'count(*)'} FILTER (WHERE conversion.status = '{status}')"
        for name, status in _COUNTED.items()
    }
    times = f" * {weight}" if weight else ""
    sums |= {name: f"sum(conversion.{name}{times}) FILTER (WHERE conversion.status = 'approved')" for name in MONEY}
    return {name: Component(CREDITS, sql) for name, sql in sums.items()}


EXTRA = Column("coalesce(touch.extras ->> {key}, conversion.extras ->> {key}, '')", ("touch",))
CHANGE_ROWS = Source(
    name="conversion_changes",
    rank=40,
    table="conversion_changes AS change JOIN conversions AS conversion USING (conversion_id)",
    moment="change.booked_hour",
    grain="instant",  # a change's hour counts where it begins, whatever the zone
    columns={**touch_columns(join="touch"), **OWN},
    components=change_sums(),
    joins={"touch": TOUCH_JOIN, "person": person_join("conversion")},
    extra=EXTRA,
)
CREDIT_ROWS = CHANGE_ROWS._replace(
    name="conversions",
    table="conversions AS conversion",
    # Without a touch (a promo code, a partner's id) its receipt stands for it.
    moment="coalesce(conversion.touched_at, conversion.received_at)",
    components=credit_sums(),
)
