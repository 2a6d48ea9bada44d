"""First touches, and conversions spread over all of their touches.

T1  The first touch is the contact's earliest click, else the cookie's (`first_click_id`), else the click itself.
T2  A conversion is spread over the clicks of its contact, else of its click's cookie, on its offer within the 30 days
    before it, without bots, prefetches and data centres; and over the touch that it is credited to.
T3  The weights of a conversion's touches have 12 places and sum to exactly one: the last touch takes what rounding leaves.
"""

from storage.postgres.reports.conversion_sources import (
    CHANGE_ROWS,
    CREDIT_ROWS,
    TOUCH_FIELDS,
    TOUCH_JOIN,
    change_sums,
    credit_sums,
)
from storage.postgres.reports.dimensions import FIRST_TOUCH
from storage.postgres.reports.sources import CLICK_ROWS, VIEW_ROWS, Column, Source, touch_columns

LOOKBACK_DAYS = 30
HALF_LIFE_DAYS = 7
_FIRST_FIELDS = "click_id, source, aff_sub1, aff_sub2, aff_sub3, aff_sub4, aff_sub5, utm_source, utm_medium, utm_campaign, utm_content, utm_term"
# The indexes by contact hold no longer ones.
_IS_CONTACT = "contact_id <> '' AND length(contact_id) <= 256"


def _first_join(who: str) -> str:
    """The first touch of `who`'s contact, else of the touch's cookie, as `first`; its condition on `who` spares the search."""
    return (
        f" LEFT JOIN LATERAL (SELECT {_FIRST_FIELDS} FROM ("
        f"(SELECT 1 AS place, {_FIRST_FIELDS} FROM clicks WHERE {who}.contact_id <> '' AND {_IS_CONTACT}"
        f" AND contact_id = {who}.contact_id ORDER BY click_id LIMIT 1) UNION ALL"
        f" (SELECT 2, {_FIRST_FIELDS} FROM clicks WHERE click_id = touch.first_click_id LIMIT 1)"
        ") AS known ORDER BY place LIMIT 1) AS first ON true"
    )


def _with_first(source: Source, who: str) -> Source:
    joins = ("touch", "first") if "touch" in source.joins else ("first",)
    columns = {
        name: Column(f"CASE WHEN first.click_id IS NULL THEN coalesce(touch.{name}, '') ELSE first.{name} END", joins)
        for name in FIRST_TOUCH
    }
    return source._replace(
        name=f"{source.name}, first touch",
        rank=source.rank + 20,
        columns={**source.columns, **columns},
        joins={**source.joins, "first": _first_join(who)},
        touches=frozenset(("first",)),
    )


_INVALID = "'{bot,prefetch,datacentre}'"
_LOWEST = (
    "(lpad(to_hex(greatest(0, floor(extract(epoch FROM conversion.converted_at) * 1000)::bigint - {ms})), 12, '0')"
    " || repeat('0', 20))::uuid"
)
_WITHIN = (
    "click.offer_id = conversion.offer_id AND click.clicked_at <= conversion.converted_at"
    f" AND click.clicked_at >= conversion.converted_at - interval '{LOOKBACK_DAYS} days'"
    f" AND click.click_id >= {_LOWEST.format(ms=LOOKBACK_DAYS * 86_400_000)} AND click.click_id <= {_LOWEST.format(ms=-1)}"
    f" AND NOT click.flags && {_INVALID}"
)
_CLICK_FIELDS = ", ".join(f"click.{name}" for name in TOUCH_FIELDS.split(", "))
_CREDITED_FIELDS = ", ".join(f"credited.{name}" for name in TOUCH_FIELDS.split(", "))
_AGE_DAYS = "extract(epoch FROM conversion.converted_at - clicked_at)::float8 / 86400"
_SHARES = {
    "linear": "1.0",
    "time_decay": f"power(0.5::float8, greatest(0, {_AGE_DAYS}) / {HALF_LIFE_DAYS})",
    "position": "CASE WHEN touches = 1 THEN 1.0 WHEN touches = 2 THEN 0.5"
    " WHEN place IN (1, touches) THEN 0.4 ELSE 0.2 / (touches - 2) END",
}


def _family(condition: str, when: str) -> str:
    return f"SELECT {_CLICK_FIELDS} FROM clicks AS click WHERE {when} AND {condition} AND {_WITHIN}"


_BY_CONTACT = _family(
    "click.contact_id = conversion.contact_id AND click.contact_id <> '' AND length(click.contact_id) <= 256",
    "conversion.contact_id <> ''",
)
_BY_COOKIE = [
    _family(condition, "conversion.contact_id = '' AND credited.first_click_id IS NOT NULL")
    for condition in ("click.first_click_id = credited.first_click_id", "click.click_id = credited.first_click_id")
]


def _spread_join(touch: str) -> str:
    """All touches of the conversion as `touch`, each with its `weight`; one without any has the weight 1 and no fields."""
    own = f"SELECT {_CREDITED_FIELDS} WHERE credited.click_id IS NOT NULL"
    found = " UNION ALL ".join([_BY_CONTACT, *_BY_COOKIE, own])
    numbered = f"SELECT DISTINCT ON (click_id) {TOUCH_FIELDS} FROM ({found}) AS found ORDER BY click_id"
    placed = (
        "SELECT *, row_number() OVER (ORDER BY click_id) AS place, count(*) OVER () AS touches"
        f" FROM ({numbered}) AS numbered"
    )
    shared = f"SELECT *, ({_SHARES[touch]})::float8 AS share FROM ({placed}) AS placed"
    rounded = f"SELECT *, round((share / sum(share) OVER ())::numeric, 12) AS part FROM ({shared}) AS shared"
    weighed = (
        f"SELECT {TOUCH_FIELDS}, CASE WHEN place < touches THEN part ELSE 1 - (sum(part) OVER () - part) END AS weight"
        f" FROM ({rounded}) AS rounded"
    )
    return TOUCH_JOIN.replace(" AS touch ON", " AS credited ON") + f" LEFT JOIN LATERAL ({weighed}) AS touch ON true"


_OF_TOUCH = {
    "partner": "aff_id",
    "landing_page": "landing_page_id",
    "creative": "creative_id",
    "country": "country",
    "device": "device_type",
}
"""Where the conversion has a column of its own that each touch has, too."""


def _spread(source: Source, touch: str) -> Source:
    own = {
        name: Column(f"CASE WHEN touch.click_id IS NULL THEN conversion.{one} ELSE touch.{one} END", ("touch",))
        for name, one in _OF_TOUCH.items()
    }
    weight = "coalesce(touch.weight, 1)"
    return source._replace(
        name=f"{source.name}, {touch}",
        rank=source.rank + 20,
        # The weights are needed whatever is grouped by.
        table=source.table + _spread_join(touch),
        columns={**source.columns, **touch_columns(join="touch"), **own},
        components=change_sums(weight) if source is CHANGE_ROWS else credit_sums(weight),
        joins={**source.joins, "touch": ""},
        touches=frozenset((touch,)),
    )


_SPREADS = tuple(_SHARES)
TOUCH_SOURCES: tuple[Source, ...] = (
    _with_first(CLICK_ROWS, "touch"),
    _with_first(VIEW_ROWS, "touch"),
    _with_first(CHANGE_ROWS, "conversion"),
    _with_first(CREDIT_ROWS, "conversion"),
    *(_spread(source, touch) for touch in _SPREADS for source in (CHANGE_ROWS, CREDIT_ROWS)),
    *(source._replace(touches=frozenset(_SPREADS)) for source in (CLICK_ROWS, VIEW_ROWS)),
)
"""A click is a touch itself: spreading conversions changes nothing about clicks and views."""
