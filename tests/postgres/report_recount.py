"""Reports counted another way: one flat table of everything that happened, and each formula written out by hand."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from operator import itemgetter
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from storage.postgres.connection import Connection

COUNTED = (
    "impressions", "gross_clicks", "unique_clicks", "invalid_clicks", "refused_clicks", "conversions", "pending", "rejected",
    "reversed", "amount", "payout", "revenue", "cost", "sends",
)  # fmt: skip
MONEY = ("amount", "payout", "revenue", "cost")
KNOWN_OF_COSTS = {"date", "week", "month", "offer", "partner", "creative", "list", "currency", "advertiser"}
TIMES = ("date", "week", "month", "hour")
_HOST = "coalesce(lower((regexp_match({0}.referrer, '^\\w+://(?:[^/?#@]*@)?([^/?#:]+)'))[1]), '')"
_SUBS = ("source", "aff_sub1", "aff_sub2", "aff_sub3", "aff_sub4", "aff_sub5", "utm_source", "utm_medium", "utm_campaign",
         "utm_content", "utm_term", "alias", "region", "city", "os", "browser", "language")  # fmt: skip
TEXTS = (
    *_SUBS,
    "contact",
    "country",
    "device",
    "referrer_host",
    "status",
    "promo_code",
    "list",
    "currency",
    "extra.colour",
)
IDS = ("advertiser", "offer", "partner", "goal", "landing_page", "creative")
_DIMENSIONS = (*IDS, *TEXTS)
_OWNER = (
    "coalesce((SELECT (convert_from(body, 'UTF8')::jsonb ->> 'advertiser_id')::int FROM catalog_items AS i"
    " WHERE kind = 'offers' AND id = t.offer_id::text AND i.revision_from <= t.catalog_revision"
    " ORDER BY i.revision_from DESC LIMIT 1), 0)"
)
_OF_CONTACT = "(SELECT list FROM contacts WHERE contacts.contact_id = {0}.contact_id)"


def _touches(table: str, kind: str) -> str:
    is_click = f"({kind!r} = 'click')::int"
    valid = "NOT ('bot' = ANY(t.flags) OR 'prefetch' = ANY(t.flags) OR 'datacentre' = ANY(t.flags))"
    subs = ", ".join(f"t.{name}" for name in _SUBS)
    return (
        f"SELECT {kind!r}, t.clicked_at, {_OWNER}, t.offer_id, t.aff_id, 0, t.landing_page_id, t.creative_id, {subs},"
        f" t.contact_id, t.country, t.device_type, {_HOST.format('t')}, '', '',"
        f" coalesce(nullif(t.extras ->> 'list', ''), {_OF_CONTACT.format('t')}, ''), t.currency,"
        f" coalesce(t.extras ->> 'colour', ''), 1 - {is_click}, {is_click},"
        f" {is_click} * ({valid} AND NOT 'duplicate' = ANY(t.flags))::int, {is_click} * (NOT {valid})::int,"
        f" {is_click} * ({valid} AND t.outcome <> 'redirected')::int, 0, 0, 0, 0, 0, t.payout, t.revenue, t.cost, 0"
        f" FROM {table} AS t"
    )


def _conversions(kind: str, at: str, sums: str, join: str) -> str:
    def of_touch(expression: str) -> str:
        return f"coalesce({expression.format('k')}, {expression.format('v')}, '')"

    subs = ", ".join(of_touch("{0}." + name) for name in _SUBS)
    host = f"coalesce(nullif({_HOST.format('k')}, ''), {_HOST.format('v')})"
    sent_list = "coalesce(nullif(coalesce(k.extras, v.extras) ->> 'list', ''), {0}, '')"
    return (
        f"SELECT {kind!r}, {at}, c.advertiser_id, c.offer_id, c.aff_id, c.goal_id, c.landing_page_id, c.creative_id, {subs},"
        f" c.contact_id, c.country, c.device_type, {host}, c.status, c.promo_code,"
        f" {sent_list.format(_OF_CONTACT.format('c'))}, c.currency,"
        " coalesce(k.extras ->> 'colour', v.extras ->> 'colour', c.extras ->> 'colour', ''),"
        f" 0, 0, 0, 0, 0, {sums}, 0, 0"
        f" FROM conversions AS c {join} LEFT JOIN clicks AS k ON k.click_id = c.click_id"
        " LEFT JOIN impressions AS v ON v.click_id = c.click_id"
    )


_BOOKED = (
    "b.conversions_delta, b.pending_delta, b.rejected_delta,"
    " CASE WHEN b.status_after = 'reversed' THEN 1 ELSE 0 END - CASE WHEN b.status_before = 'reversed' THEN 1 ELSE 0 END,"
    " b.amount_delta, b.payout_delta, b.revenue_delta"
)
_AS_IT_IS = "".join(f"(c.status = '{status}')::int, " for status in ("approved", "pending", "rejected", "reversed")) + (
    "CASE c.status WHEN 'approved' THEN c.amount ELSE 0 END, CASE c.status WHEN 'approved' THEN c.payout ELSE 0 END,"
    " CASE c.status WHEN 'approved' THEN c.revenue ELSE 0 END"
)
_SPENT = (
    "SELECT 'spend', day::timestamp AT TIME ZONE 'UTC', coalesce((SELECT (convert_from(body, 'UTF8')::jsonb ->> 'advertiser_id')"
    "::int FROM catalog_items WHERE kind = 'offers' AND id = offer_id::text AND revision_to IS NULL), 0), offer_id, aff_id, 0,"
    f" 0, creative_id, {', '.join(['NULL'] * len(_SUBS))}, NULL, NULL, NULL, NULL, NULL, NULL, list, currency, NULL,"
    " 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, amount, sends FROM costs"
)


class Asked(NamedTuple):
    """One random report."""

    dimensions: tuple[str, ...]
    filters: Mapping[str, tuple[str, ...]]
    starts_at: datetime
    ends_at: datetime
    zone: str
    by: str
    clicks: str


async def flatten(conn: Connection) -> None:
    """Make `flat`: a row for each thing that happened, with all dimensions as text."""
    columns = ", ".join(f'"{name}"' for name in ("kind", "at", *_DIMENSIONS[:6], *TEXTS, *COUNTED))
    received = "CASE WHEN c.touched_at IS NULL THEN c.received_at ELSE c.touched_at END"
    parts = [
        _touches("clicks", "click"),
        _touches("impressions", "view"),
        _conversions("change", "b.booked_hour", _BOOKED, "JOIN conversion_changes AS b USING (conversion_id)"),
        _conversions("credit", received, _AS_IT_IS, ""),
        _SPENT,
    ]
    await conn.execute(f"CREATE TABLE flat AS SELECT * FROM ({' UNION ALL '.join(parts)}) AS flat ({columns})")


Sums = dict[tuple[Any, ...], dict[str, Any]]


class Counted(NamedTuple):
    """Sums by dimensions and currency, and by currency alone. None: costs that nobody knows. `whole`: what only the total shows."""

    rows: Sums
    totals: Sums
    whole: list[dict[str, Any]]
    nothing: dict[str, Any]
    """The total of no rows at all."""


async def recount(conn: Connection, asked: Asked) -> Counted:
    """What the report should say."""
    known = set(asked.dimensions) | set(asked.filters)
    is_whole = _is_whole_days(asked)
    has_costs = await _has_costs(conn, asked)
    knows_filters = is_whole and not (set(asked.filters) - KNOWN_OF_COSTS)
    knows_rows = knows_filters and not (known - KNOWN_OF_COSTS)
    nobody = asked._replace(by="nobody")
    unknown = {"cost": None, "sends": None} if has_costs and not knows_filters else {}
    whole: list[dict[str, Any]] = []
    if knows_filters and not knows_rows:
        for one, dimensions in ((asked, asked.dimensions), (nobody, ())):
            found = await _level(conn, one, dimensions, spends=one is nobody, hides=False)
            whole += [{"currency": key[-1], **sums} for key, sums in found.items()]
    return Counted(
        await _level(conn, asked, asked.dimensions, spends=knows_rows, hides=has_costs and not knows_rows),
        await _level(conn, asked, (), spends=knows_filters, hides=has_costs and not knows_filters),
        whole,
        {**dict.fromkeys(COUNTED, 0), **unknown},
    )


async def _level(conn: Connection, asked: Asked, dimensions: Sequence[str], *, spends: bool, hides: bool) -> Sums:
    kinds = {"conversion": ["click", "view", "change"], "click": ["click", "view", "credit"], "nobody": []}[asked.by]
    days = _days(asked)
    keys = [_key(name, asked.zone) for name in dimensions]
    conditions = ["(kind = ANY($1) AND at >= $2 AND at < $3 OR kind = 'spend' AND $4 AND at::date BETWEEN $5 AND $6)"]
    arguments: list[Any] = [kinds, asked.starts_at, asked.ends_at, spends, days[0], days[-1]]
    for name, values in asked.filters.items():
        arguments.append(list(values))
        conditions.append(f"({_key(name, asked.zone)}) = ANY(${len(arguments)})")
    groups = ", ".join(str(place + 1) for place in range(len(keys) + 1))
    rows = await conn.fetch(
        f"SELECT {', '.join([*keys, 'currency'])}, {', '.join(f'sum({name}) AS {name}' for name in COUNTED)} FROM flat"
        f" WHERE {' AND '.join(conditions)} GROUP BY {groups}",
        *arguments,
    )
    found = {}
    for row in rows:
        sums: dict[str, Any] = {name: row[name] or 0 for name in COUNTED}
        if hides:
            sums |= {"cost": None, "sends": None}
        found[tuple(row)[: len(keys) + 1]] = sums
    return found


def _key(name: str, zone: str) -> str:
    """The dimension as text; a time's as ISO 8601, an hour's in UTC."""
    local = f"(CASE kind WHEN 'spend' THEN at AT TIME ZONE 'UTC' ELSE at AT TIME ZONE '{zone}' END)"
    if name == "date":
        return f"to_char({local}, 'YYYY-MM-DD')"
    if name == "month":
        return f"to_char({local}, 'YYYY-MM-01')"
    if name == "week":
        return f"to_char({local} - make_interval(days => extract(isodow FROM {local})::int - 1), 'YYYY-MM-DD')"
    if name == "hour":
        into = f"make_interval(mins => extract(minute FROM {local})::int, secs => extract(second FROM at)::float8)"
        return f"to_char((at - {into}) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI')"
    return f'"{name}"::text'


def _days(asked: Asked) -> list[date]:
    """The days of the zone that the report touches."""
    zone = ZoneInfo(asked.zone)
    first, last = (
        asked.starts_at.astimezone(zone).date(),
        (asked.ends_at - timedelta(seconds=1)).astimezone(zone).date(),
    )
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _is_whole_days(asked: Asked) -> bool:
    return all(
        at.astimezone(ZoneInfo(asked.zone)).strftime("%H%M%S") == "000000" for at in (asked.starts_at, asked.ends_at)
    )


async def _has_costs(conn: Connection, asked: Asked) -> bool:
    """Whether costs could be missed: any of these days, for the offers, partners, creatives, lists, currencies asked for."""
    kept = {name: values for name, values in asked.filters.items() if name in KNOWN_OF_COSTS - {*TIMES, "advertiser"}}
    conditions = ["kind = 'spend' AND at::date BETWEEN $1 AND $2"]
    conditions += [f"{_key(name, asked.zone)} = ANY(${place})" for place, name in enumerate(kept, 3)]
    days = _days(asked)
    query = f"SELECT EXISTS (SELECT FROM flat WHERE {' AND '.join(conditions)})"
    return bool(await conn.fetchval(query, days[0], days[-1], *map(list, kept.values())))


def _per(top: Any, bottom: Any, scale: int = 1) -> Fraction | None:
    return None if top is None or not bottom else scale * Fraction(top) / Fraction(bottom)


def _less(*values: Any) -> Any:
    return None if None in values else values[0] - sum(values[1:])


def _plus(*values: Any) -> Any:
    return None if None in values else sum(values)


FORMULAS: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{name: itemgetter(name) for name in (*COUNTED, "clicks")},
    "duplicate_clicks": lambda s: s["gross_clicks"] - s["invalid_clicks"] - s["unique_clicks"],
    "ctr": lambda s: _per(s["clicks"], s["impressions"], 100),
    "cr": lambda s: _per(s["conversions"], s["clicks"], 100),
    "gross_profit": lambda s: s["revenue"] - s["payout"],
    "profit": lambda s: _less(s["revenue"], s["payout"], s["cost"]),
    "margin": lambda s: _per(_less(s["revenue"], s["payout"], s["cost"]), s["revenue"], 100),
    "epc": lambda s: _per(s["earnings"], s["clicks"]),
    "rpc": lambda s: _per(s["revenue"], s["clicks"]),
    "cpc": lambda s: _per(s["payout"], s["clicks"]),
    "rpa": lambda s: _per(s["revenue"], s["conversions"]),
    "cpa": lambda s: _per(s["payout"], s["conversions"]),
    "aov": lambda s: _per(s["amount"], s["conversions"]),
    "roi": lambda s: _per(_less(s["revenue"], s["payout"], s["cost"]), _plus(s["payout"], s["cost"]), 100),
    "roas": lambda s: _per(s["revenue"], s["cost"]),
    "rpm": lambda s: _per(s["revenue"], s["impressions"], 1000),
    "cpm": lambda s: _per(s["payout"], s["impressions"], 1000),
    "revenue_per_send": lambda s: _per(s["revenue"], s["sends"]),
    "cost_per_send": lambda s: _per(s["cost"], s["sends"]),
}
_MONEYLESS = {"ctr", "cr", "clicks", "duplicate_clicks", *(name for name in COUNTED if name not in MONEY)}


def figures(sums: Mapping[str, Any], metrics: Sequence[str], clicks: str, earnings: str = "revenue") -> dict[str, Any]:
    """The metrics by hand."""
    counted = {
        "gross": sums["gross_clicks"],
        "valid": sums["gross_clicks"] - sums["invalid_clicks"],
        "unique": sums["unique_clicks"],
    }[clicks]
    values = {**sums, "clicks": counted, "earnings": sums[earnings]}
    return {name: FORMULAS[name](values) for name in metrics}


def without_money(figures: Mapping[str, Any]) -> dict[str, Any]:
    """A total over several currencies: what is no money, and None for the rest."""
    return {name: value if name in _MONEYLESS else None for name, value in figures.items()}


def are_equal(shown: Any, counted: Any) -> bool:
    """Sums exactly, ratios to the 6 places that are shown."""
    if shown is None or counted is None:
        return shown is None and counted is None
    if isinstance(counted, Fraction):
        return abs(Fraction(shown) - counted) <= Fraction(1, 1_999_999)
    return Decimal(shown) == Decimal(counted)
