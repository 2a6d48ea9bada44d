"""Do the roll-ups equal the raw rows? `stats_hourly` against a recount that shares no code with the product.

Clicks and impressions are counted from their rows, conversions from `conversion_changes` joined to `conversions`; and the
changes of each conversion must add up to what its row says. What an unknown click's conversion was booked under before
its click came is not stored: its offer and goal are compared over all hours only, everything else hour by hour.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from tests.rollup_recount import rollup_differences

MAX_LINES = 40
COUNTED = (
    "impressions", "gross_clicks", "unique_clicks", "invalid_clicks", "refused_clicks", "conversions", "pending", "rejected",
    "reversed",
)  # fmt: skip
MEASURES = (*COUNTED, "amount", "payout", "revenue", "cost")
_EVER = datetime(1970, 1, 1, tzinfo=UTC)


class Key(NamedTuple):
    """A row's key in `stats_hourly`."""

    hour: datetime
    node_id: int
    advertiser_id: int
    offer_id: int
    aff_id: int
    goal_id: int
    landing_page_id: int
    creative_id: int
    country: str
    device_type: str
    currency: str


Sums = dict[Key, Counter[str]]
"""Measures by key; absent ones are 0. (A Counter adds Decimals as well.)"""

_KEY = ", ".join(Key._fields)
_TOUCHES = """
    SELECT date_trunc('hour', clicked_at, 'UTC') AS hour, node_id, offer_id, aff_id, landing_page_id, creative_id, country,
           device_type, currency, catalog_revision, count(*) AS rows,
           count(*) FILTER (WHERE flags && '{bot,prefetch,datacentre}') AS invalid,
           count(*) FILTER (WHERE NOT flags && '{bot,prefetch,datacentre,duplicate}') AS uniques,
           count(*) FILTER (WHERE NOT flags && '{bot,prefetch,datacentre}' AND outcome IN ('fallback', 'rejected')) AS refused,
           sum(payout) AS payout, sum(revenue) AS revenue, sum(cost) AS cost
    FROM %s GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
"""
_OFFERS = "SELECT id::int, revision_from, coalesce(revision_to, 1::bigint << 62), body FROM catalog_items WHERE kind = 'offers'"
_CHANGES = """
    SELECT changes.booked_hour AS hour, node_id, advertiser_id, offer_id, aff_id, goal_id, landing_page_id, creative_id,
           country, device_type, currency, conversions.conversion_id, status, changes.kind, status_before, status_after,
           conversions.amount, conversions.payout, conversions.revenue,
           conversions_delta, pending_delta, rejected_delta, amount_delta, payout_delta, revenue_delta,
           amount_after, payout_after, revenue_after
    FROM conversion_changes AS changes JOIN conversions USING (conversion_id) ORDER BY change_id
"""
_STRAYS = """
    SELECT 'conversion ' || conversion_id || ' has no change' FROM conversions
    WHERE NOT EXISTS (SELECT FROM conversion_changes AS c WHERE c.conversion_id = conversions.conversion_id)
    UNION ALL
    SELECT 'change of a conversion that is not there: ' || conversion_id FROM conversion_changes
    WHERE NOT EXISTS (SELECT FROM conversions AS c WHERE c.conversion_id = conversion_changes.conversion_id)
"""
_CONTACTS = """
    WITH seen AS (
        SELECT contact_id, min(at) AS at, (array_agg(click_id ORDER BY click_id) FILTER (WHERE click_id IS NOT NULL))[1] AS first
        FROM (SELECT contact_id, clicked_at AS at, click_id FROM clicks
              UNION ALL SELECT contact_id, clicked_at, NULL FROM impressions
              UNION ALL SELECT contact_id, converted_at, NULL FROM conversions) AS rows
        WHERE contact_id <> '' AND length(contact_id) <= 256 GROUP BY contact_id
    )
    SELECT format('contact %s was first seen at %s in %s: the rows say %s in %s', contact_id, first_seen_at, first_click_id, at, first)
    FROM seen FULL JOIN contacts USING (contact_id)
    WHERE (first_seen_at, first_click_id) IS DISTINCT FROM (at, first)
"""


async def differences(conn: Any) -> list[str]:
    """One line for each measure of a key that is not what the rows say, for at most 40; empty: all is well."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        stored: Sums = defaultdict(Counter)
        for row in await conn.fetch(f"SELECT {_KEY}, {', '.join(MEASURES)} FROM stats_hourly"):
            stored[Key(*(row[name] for name in Key._fields))].update({name: row[name] for name in MEASURES})
        counted = await _count_touches(conn)
        changes = await conn.fetch(_CHANGES)
        faults = [row[0] for row in await conn.fetch(_STRAYS)]
        faults += await rollup_differences(conn)
    faults += _unexplained(changes)
    redecided = {row["conversion_id"] for row in changes if row["kind"] == "decided" and row["status_before"]}
    for row in changes:
        _count_change(counted, row, redecided)
    faults += _compare("", stored, counted, _without_lost_offers if redecided else _as_it_is)
    faults += _compare("in all hours, ", stored, _moved_back(counted), _without_hours)
    return faults[:MAX_LINES]


async def contact_differences(conn: Any) -> list[str]:
    """One line for each contact that is not what the rows say: those that they name, each first seen in the earliest."""
    return [row[0] for row in await conn.fetch(f"{_CONTACTS} LIMIT {MAX_LINES}")]


async def _count_touches(conn: Any) -> Sums:
    offers = await conn.fetch(_OFFERS)
    counted: Sums = defaultdict(Counter)
    for table in ("clicks", "impressions"):
        for row in await conn.fetch(_TOUCHES % table):
            advertiser_id = _advertiser_of(offers, row["offer_id"], row["catalog_revision"])
            key = Key(
                row["hour"], row["node_id"], advertiser_id, row["offer_id"], row["aff_id"], 0, row["landing_page_id"],
                row["creative_id"], row["country"], row["device_type"], row["currency"],
            )  # fmt: skip
            measures = {name: row[name] for name in ("payout", "revenue", "cost")}
            if table == "impressions":
                measures["impressions"] = row["rows"]
            else:
                measures |= {
                    "gross_clicks": row["rows"],
                    "unique_clicks": row["uniques"],
                    "invalid_clicks": row["invalid"],
                    "refused_clicks": row["refused"],
                }
            counted[key].update(measures)
    return counted


def _advertiser_of(offers: Iterable[Any], offer_id: int, revision: int) -> int:
    """The offer's advertiser as the catalog had it in that revision; 0 where it had no such offer."""
    for known_id, first, end, body in offers:
        if known_id == offer_id and first <= revision < end:
            return int(json.loads(body)["advertiser_id"])
    return 0


def _unexplained(changes: Iterable[Any]) -> list[str]:
    """Conversions whose changes do not add up to their row: one of a status, with its money if that is approved; or
    whose last change left other amounts than the row has.
    """
    found: dict[UUID, Counter[str]] = defaultdict(Counter)
    rows = {}
    for row in changes:
        rows[row["conversion_id"]] = row
        found[row["conversion_id"]].update(_deltas(row))
    faults = []
    for conversion_id, sums in found.items():
        row, status = rows[conversion_id], rows[conversion_id]["status"]
        expected: dict[str, Any] = {
            "conversions": int(status == "approved"),
            "pending": int(status == "pending"),
            "rejected": int(status == "rejected"),
            **{name: row[name] if status == "approved" else Decimal(0) for name in ("amount", "payout", "revenue")},
        }
        faults += [
            f"conversion {conversion_id} is {status}: its changes add up to {name} {sums[name]}, not {value}"
            for name, value in expected.items()
            if sums[name] != value
        ]
        faults += [
            f"conversion {conversion_id} has {name} {row[name]}: its last change says {row[f'{name}_after']}"
            for name in ("amount", "payout", "revenue")
            if row[f"{name}_after"] not in (None, row[name])
        ]
    return faults


def _deltas(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: row[f"{name}_delta"] for name in ("conversions", "pending", "rejected", "amount", "payout", "revenue")
    }


def _count_change(counted: Sums, row: Any, redecided: set[UUID]) -> None:
    """One change under its conversion's key; a rejection for want of the click under the key that it had then."""
    key = Key(*(row[name] for name in Key._fields))
    deltas = _deltas(row)
    deltas["reversed"] = (row["status_after"] == "reversed") - (row["status_before"] == "reversed")
    if row["conversion_id"] in redecided and row["kind"] == "decided":
        before = -1 if row["status_before"] else 1
        counted[_lost(key.hour, _node_of(row["conversion_id"]))]["rejected"] += before
        deltas["rejected"] -= before
    counted[key].update(deltas)


def _lost(hour: datetime, node_id: int) -> Key:
    """Where rejections without a click are compared; -1: whatever the offer and goal."""
    return Key(hour, node_id, 0, -1, 0, -1, 0, 0, "", "", "")


def _node_of(conversion_id: UUID) -> int:
    return conversion_id.int >> 46 & 0x3FF


def _as_it_is(key: Key, measure: str) -> Key:
    return key


def _without_lost_offers(key: Key, measure: str) -> Key:
    lost = _lost(key.hour, key.node_id)
    is_without_click = key._replace(offer_id=-1, goal_id=-1) == lost
    return lost if is_without_click and measure == "rejected" else key


def _without_hours(key: Key, measure: str) -> Key:
    return key._replace(hour=_EVER)


def _moved_back(counted: Sums) -> Sums:
    """Over all hours, rejections that a late click took back leave nothing behind."""
    return {key: sums for key, sums in counted.items() if key.offer_id != -1}


def _compare(where: str, stored: Sums, counted: Sums, project: Callable[[Key, str], Key]) -> list[str]:
    sides = []
    for side in (stored, counted):
        sums: Counter[tuple[Key, str]] = Counter()
        for key, measures in side.items():
            for name, value in measures.items():
                sums[project(key, name), name] += value
        sides.append(sums)
    stats, rows = sides
    return [
        f"{where}{name} is {stats[key, name]} in stats_hourly and {rows[key, name]} in the rows: {_describe(key)}"
        for key, name in sorted(stats.keys() | rows.keys())
        if stats[key, name] != rows[key, name]
    ]


def _describe(key: Key) -> str:
    return ", ".join(f"{name} {value}" for name, value in key._asdict().items() if value not in (0, "", _EVER))
