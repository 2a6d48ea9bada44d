"""What contacts brought in after they came: by the day, week or month in which they did, within so many days each.

K1  A contact is of the cohort of its `joined_at`: its sign-up, else when it was first seen. A deleted one too.
K2  A window of n days is n times 24 hours from each contact's own `joined_at`; windows contain each other.
K3  Revenue is that of approved conversions as they are now, by `converted_at`, and what clicks and views earned. Money of
    two currencies stands in two rows.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from storage.postgres.arguments import Arguments
from storage.postgres.connection import Connection
from storage.postgres.contact_filter import FIRST, IS_CONTACT, JOINED_AT, ContactFilter, conditions

Bucket = Literal["day", "week", "month"]
WINDOW_DAYS = (7, 30, 90)
MAX_WINDOWS = 24
MAX_WINDOW_DAYS = 3660
_SIX_PLACES = Decimal("0.000001")


class CohortQuery(NamedTuple):
    """Contacts that `who` means, which has both of its joined_ bounds; `currencies` empty: all."""

    who: ContactFilter
    bucket: Bucket = "month"
    zone: str = "UTC"
    window_days: Sequence[int] = WINDOW_DAYS
    currencies: tuple[str, ...] = ()


class Window(NamedTuple):
    """What a cohort brought in within so many days of coming, all together."""

    days: int
    is_complete: bool
    """Whether these days are over for all of the cohort."""
    converting: int
    """Contacts with an approved conversion in this currency."""
    conversions: int
    revenue: Decimal
    revenue_per_contact: Decimal


class Cohort(NamedTuple):
    """One cohort in one currency ("": it brought in nothing). `starts_on` is the first day of its day, week or month."""

    starts_on: date
    contacts: int
    currency: str
    windows: list[Window]


async def find_cohorts(conn: Connection, query: CohortQuery, now: datetime) -> list[Cohort]:
    """The cohorts, oldest first; those without a contact are left out."""
    sql, values = _cohort_sql(query)
    sizes: dict[date, int] = {}
    found: dict[date, dict[str, dict[int, Any]]] = defaultdict(lambda: defaultdict(dict))
    for row in await conn.fetch(sql, *values):
        if row["days"] == 0:
            sizes[row["cohort"]] = row["contacts"]
        else:
            found[row["cohort"]][row["currency"]][row["days"]] = row
    return [
        Cohort(starts_on, size, currency, _windows(query, starts_on, size, found[starts_on].get(currency, {}), now))
        for starts_on, size in sorted(sizes.items())
        for currency in sorted(found[starts_on]) or [""]
    ]


def _windows(query: CohortQuery, starts_on: date, size: int, rows: dict[int, Any], now: datetime) -> list[Window]:
    ends_at = min(_end_of(starts_on, query), query.who.joined_until or now)
    return [
        _window(days, ends_at + timedelta(days=days) <= now, size, rows.get(days)) for days in sorted(query.window_days)
    ]


def _window(days: int, is_complete: bool, size: int, row: Any) -> Window:
    if row is None:
        return Window(days, is_complete, 0, 0, Decimal(0), Decimal(0))
    revenue = Decimal(row["revenue"])
    return Window(
        days, is_complete, row["contacts"], row["conversions"], revenue, (revenue / size).quantize(_SIX_PLACES)
    )


def _end_of(starts_on: date, query: CohortQuery) -> datetime:
    """The first moment after the cohort's day, week or month."""
    days = {"day": 1, "week": 7, "month": 32}[query.bucket]
    after = starts_on + timedelta(days=days)
    first_day = after.replace(day=1) if query.bucket == "month" else after
    return datetime.combine(first_day, time(), ZoneInfo(query.zone))


def _cohort_sql(query: CohortQuery) -> tuple[str, list[Any]]:
    """Sizes (with days 0) and figures in one statement: both of one moment."""
    arguments = Arguments()
    bucket, zone = arguments.add(query.bucket), arguments.add(query.zone)
    windows = arguments.add(sorted(query.window_days))
    first = FIRST if query.who.needs_first_click else ""
    members = " AND ".join(["contacts.joined_at IS NOT NULL", *conditions(query.who, arguments)])
    currency = f" AND currency = ANY({arguments.add(list(query.currencies))})" if query.currencies else ""
    sql = (
        "WITH members AS MATERIALIZED (SELECT contacts.contact_id, contacts.joined_at,"
        f" date_trunc({bucket}::text, {JOINED_AT} AT TIME ZONE {zone}::text)::date AS cohort"
        f" FROM contacts{first} WHERE {members}), earned AS ({' UNION ALL '.join(_earned(query, arguments, currency))})"
        " SELECT cohort, 0 AS days, '' AS currency, count(*) AS contacts, 0 AS conversions, 0 AS revenue"
        " FROM members GROUP BY cohort UNION ALL"
        " SELECT cohort, days, currency, count(DISTINCT contact_id) FILTER (WHERE conversions > 0), sum(conversions),"
        f" sum(revenue) FROM members JOIN earned USING (contact_id) CROSS JOIN unnest({windows}::int[]) AS spans (days)"
        " WHERE earned.at >= joined_at AND earned.at < joined_at + make_interval(hours => days * 24)"
        " GROUP BY cohort, days, currency"
    )
    return sql, arguments.values


def _earned(query: CohortQuery, arguments: Arguments, currency: str) -> Iterable[str]:
    """Everything that may have brought something in, by contact. The bounds on ids prune partitions."""
    since, until = query.who.joined_since, query.who.joined_until
    if since is None or until is None:
        raise ValueError("cohorts need both ends")
    through = until + timedelta(days=max(query.window_days))
    low, high = arguments.add(since), arguments.add(through)
    yield (
        "SELECT contact_id, converted_at AS at, currency, revenue, 1 AS conversions FROM conversions"
        f" WHERE status = 'approved' AND {IS_CONTACT} AND converted_at >= {low} AND converted_at < {high}{currency}"
    )
    low_id, high_id = arguments.add(_lowest_id(since)), arguments.add(_lowest_id(through))
    for table in ("clicks", "impressions"):
        yield (
            f"SELECT contact_id, clicked_at, currency, revenue, 0 FROM {table} WHERE revenue <> 0 AND {IS_CONTACT}"
            f" AND click_id >= {low_id} AND click_id < {high_id}{currency}"
        )


def _lowest_id(moment: datetime) -> UUID:
    """The lowest click id of that millisecond."""
    return UUID(int=max(0, min(round(moment.timestamp() * 1000), (1 << 48) - 1)) << 80)
