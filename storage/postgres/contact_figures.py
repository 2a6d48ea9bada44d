"""What is known of contacts, together: their clicks, conversions and money for life, their first and last touch."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from storage.postgres.connection import Connection
from storage.postgres.contact_filter import IS_CONTACT, UTM

Row = dict[str, Any]
_ZERO = Decimal(0)
_INVALID = "'{bot,prefetch,datacentre}'"
_TOUCHES = (
    f"SELECT contact_id, currency, count(*) AS gross, count(*) FILTER (WHERE NOT flags && {_INVALID}) AS valid,"
    f" sum(revenue) AS revenue, sum(payout) AS payout FROM %s WHERE contact_id = ANY($1) AND {IS_CONTACT} GROUP BY 1, 2"
)


class Earned(NamedTuple):
    """What contacts brought in, in one currency: approved conversions, and what their clicks and views earned."""

    currency: str
    conversions: int
    amount: Decimal
    revenue: Decimal
    payout: Decimal


class Figures(NamedTuple):
    """Of one contact, for life. `clicks`: without bots, prefetches and data centres; `gross_clicks`: all."""

    impressions: int
    gross_clicks: int
    clicks: int
    conversions: int
    money: list[Earned]
    last: Row | None
    """The UTM parameters of the last click, with its time; None without a click."""


async def find_figures(conn: Connection, contact_ids: Sequence[str]) -> dict[str, Figures]:
    """The figures of these contacts, by contact."""
    clicks = await conn.fetch(_TOUCHES % "clicks", contact_ids)
    views = await conn.fetch(_TOUCHES % "impressions", contact_ids)
    conversions = await conn.fetch(
        "SELECT contact_id, currency, count(*) AS conversions, sum(amount) AS amount, sum(revenue) AS revenue,"
        f" sum(payout) AS payout FROM conversions WHERE contact_id = ANY($1) AND {IS_CONTACT} AND status = 'approved'"
        " GROUP BY 1, 2",
        contact_ids,
    )
    last = {row["contact_id"]: row for row in await conn.fetch(_LAST, contact_ids)}
    return {
        one: _figures(_of(clicks, one), _of(views, one), _of(conversions, one), last.get(one)) for one in contact_ids
    }


_LAST = (
    f"SELECT DISTINCT ON (contact_id) contact_id, clicked_at, {', '.join(UTM)} FROM clicks"
    f" WHERE contact_id = ANY($1) AND {IS_CONTACT} ORDER BY contact_id, click_id DESC"
)


def _of(rows: Sequence[Any], contact_id: str) -> list[Any]:
    return [row for row in rows if row["contact_id"] == contact_id]


def _figures(clicks: list[Any], views: list[Any], conversions: list[Any], last: Any) -> Figures:
    return Figures(
        sum(row["gross"] for row in views),
        sum(row["gross"] for row in clicks),
        sum(row["valid"] for row in clicks),
        sum(row["conversions"] for row in conversions),
        list(_money([*clicks, *views, *conversions])),
        {name: value for name, value in last.items() if name != "contact_id"} if last else None,
    )


def _money(rows: Sequence[Any]) -> list[Earned]:
    """By currency; one in which nothing was earned and nothing converted is left out."""
    found: dict[str, Earned] = {}
    for row in rows:
        before = found.get(row["currency"], Earned(row["currency"], 0, _ZERO, _ZERO, _ZERO))
        found[row["currency"]] = Earned(
            row["currency"],
            before.conversions + row.get("conversions", 0),
            before.amount + row.get("amount", _ZERO),
            before.revenue + row["revenue"],
            before.payout + row["payout"],
        )
    return [one for _, one in sorted(found.items()) if any(one[1:])]
