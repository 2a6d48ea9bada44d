"""What cohorts brought in, against plain Python over all rows."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from storage.postgres.cohorts import Cohort, CohortQuery, find_cohorts
from storage.postgres.connection import connect
from storage.postgres.contact_filter import ContactFilter
from storage.postgres.contacts import ContactRow, upsert_contacts
from tests.postgres import people
from tests.postgres.drains import Bench
from tests.postgres.people import Row, Tables

NOW = datetime.now(UTC)


def begin(local: date, bucket: str) -> date:
    if bucket == "week":
        return local - timedelta(days=local.weekday())
    return local.replace(day=1) if bucket == "month" else local


def is_meant(tables: Tables, contact: Row, who: ContactFilter) -> bool:
    joined = people.joined_at(contact)
    first = people.first_click(tables, contact["contact_id"])
    sales = [row for row in tables.conversions if row["contact_id"] == contact["contact_id"] and row["status"] == "approved"]
    return (
        joined is not None
        and who.joined_since is not None
        and who.joined_until is not None
        and who.joined_since <= joined < who.joined_until
        and (not who.lists or people.list_of(tables, contact) in who.lists)
        and all((first[name] if first else "") in values for name, values in who.first_utm.items())
        and who.has_converted in (None, bool(sales))
    )


def expected(tables: Tables, query: CohortQuery) -> dict[tuple[date, str], Any]:
    """(cohort, currency) -> (contacts, {days: (converting, conversions, revenue)}), what is zero left out."""
    members = {row["contact_id"]: row for row in tables.contacts if is_meant(tables, row, query.who)}
    cohorts: dict[date, set[str]] = defaultdict(set)
    of = {}
    for one, contact in members.items():
        joined = people.joined_at(contact)
        assert joined
        of[one] = begin(joined.astimezone(ZoneInfo(query.zone)).date(), query.bucket)
        cohorts[of[one]].add(one)
    sums: dict[tuple[date, str], Any] = defaultdict(lambda: defaultdict(lambda: [set(), 0, Decimal(0)]))
    for one, at, currency, revenue, conversions in people.earnings(tables):
        if one not in members or (query.currencies and currency not in query.currencies):
            continue
        joined = people.joined_at(members[one])
        assert joined
        for days in query.window_days:
            if joined <= at < joined + timedelta(days=days):
                cell = sums[of[one], currency][days]
                cell[0] |= {one} if conversions else set()
                cell[1] += conversions
                cell[2] += revenue
    found = {
        (cohort, currency): (len(cohorts[cohort]), {days: (len(who), n, money) for days, (who, n, money) in cells.items()})
        for (cohort, currency), cells in sums.items()
    }
    without: dict[tuple[date, str], Any] = {(one, ""): (len(who), {}) for one, who in cohorts.items() if one not in {key[0] for key in found}}
    return found | without


def as_found(cohorts: list[Cohort]) -> dict[tuple[date, str], Any]:
    return {
        (one.starts_on, one.currency): (
            one.contacts,
            {
                window.days: (window.converting, window.conversions, window.revenue)
                for window in one.windows
                if window.conversions or window.revenue
            },
        )
        for one in cohorts
    }


async def test_cohorts_are_what_the_rows_say(town: tuple[str, Tables]) -> None:
    """Sixty questions of random bucket, zone, windows, list, first UTM and currency; deleted contacts are in the totals."""
    url, tables = town
    random, conn = Random(7), await connect(url)
    try:
        sizes = []
        for _ in range(60):
            since = NOW - timedelta(days=random.randrange(20, 70), hours=random.randrange(24))
            utm = {"utm_source": ("mail", "")} if random.random() < 0.3 else {}
            who = ContactFilter(
                random.choice(((), (), ("news",), ("cold", ""))), since, since + timedelta(days=random.randrange(5, 70)),
                random.choice((None, None, True, False)), utm,
            )  # fmt: skip
            query = CohortQuery(
                who,
                random.choice(("day", "week", "month")),
                random.choice(("UTC", "America/New_York", "Asia/Kolkata")),
                random.sample((1, 3, 7, 10, 30, 45, 90), random.randrange(1, 5)),
                random.choice(((), (), ("EUR",))),
            )
            cohorts = await find_cohorts(conn, query, NOW)
            assert as_found(cohorts) == expected(tables, query)
            sizes.append(len(cohorts))
        assert sum(sizes) > 200
    finally:
        await conn.close()


async def test_windows_contain_each_other_and_say_whether_they_are_over(town: tuple[str, Tables]) -> None:
    """Cumulative: no window has less than a shorter one; one that may still grow for somebody is marked."""
    url, _ = town
    conn = await connect(url)
    try:
        who = ContactFilter(joined_since=NOW - timedelta(days=70), joined_until=NOW + timedelta(days=1))
        cohorts = await find_cohorts(conn, CohortQuery(who, "week"), NOW)
    finally:
        await conn.close()
    assert {window.is_complete for one in cohorts for window in one.windows} == {True, False}
    for one in cohorts:
        assert [window.days for window in one.windows] == [7, 30, 90]
        revenues = [window.revenue for window in one.windows]
        assert revenues == sorted(revenues)
        ends_at = datetime.combine(one.starts_on + timedelta(days=7), datetime.min.time(), UTC)
        for window in one.windows:
            assert window.is_complete == (ends_at + timedelta(days=window.days) <= NOW)
            assert window.revenue_per_contact == round(window.revenue / one.contacts, 6)


async def test_a_window_ends_to_the_millisecond(embedded_bench: Bench) -> None:
    """Seven days after sign-up is outside; the moment before is inside; what was bought before sign-up is in no window."""
    bench = embedded_bench
    scribe = bench.scribe()
    base = datetime(2026, 3, 1, 12, tzinfo=UTC)
    await upsert_contacts(bench.conn, [ContactRow("anna", "", base)])
    moments = (base - timedelta(milliseconds=1), base, base + timedelta(days=7, milliseconds=-1), base + timedelta(days=7))
    for moment in moments:
        ms = round(moment.timestamp() * 1000)
        scribe.convert(scribe.click(ms=ms, contact_id="anna"), ms=ms)
    await bench.drain()
    who = ContactFilter(joined_since=base - timedelta(days=1), joined_until=base + timedelta(days=1))
    [cohort] = await find_cohorts(bench.conn, CohortQuery(who, "month"), base + timedelta(days=100))
    assert (cohort.starts_on, cohort.contacts, cohort.currency) == (date(2026, 3, 1), 1, "USD")
    assert [(one.days, one.conversions, one.revenue) for one in cohort.windows] == [
        (7, 2, 15), (30, 3, Decimal("22.5")), (90, 3, Decimal("22.5")),
    ]  # fmt: skip


async def test_a_cohorts_day_is_the_zones_own(embedded_bench: Bench) -> None:
    """Half past four in the morning in Kolkata is the evening before in Greenwich; a day of 23 hours ends an hour early."""
    conn = embedded_bench.conn
    at = datetime(2026, 3, 28, 23, tzinfo=UTC)
    await upsert_contacts(conn, [ContactRow("anna", "", at)])
    who = ContactFilter(joined_since=at - timedelta(days=2), joined_until=at + timedelta(days=2))
    for zone, day in (("UTC", 28), ("Asia/Kolkata", 29), ("Europe/Berlin", 29)):
        [cohort] = await find_cohorts(conn, CohortQuery(who, "day", zone, (1,)), at)
        assert cohort.starts_on == date(2026, 3, day)
    ends_at = datetime(2026, 3, 29, 22, tzinfo=UTC) + timedelta(days=1)
    for now, is_complete in ((ends_at, True), (ends_at - timedelta(seconds=1), False)):
        [cohort] = await find_cohorts(conn, CohortQuery(who, "day", "Europe/Berlin", (1,)), now)
        assert cohort.windows[0].is_complete is is_complete
