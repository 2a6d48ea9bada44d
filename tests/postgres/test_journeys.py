"""Contacts' journeys, figures and lists, against plain Python over all rows."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

import pytest

from storage.postgres.connection import Connection, connect
from storage.postgres.contact_filter import UTM, ContactFilter
from storage.postgres.contacts import ContactRow, upsert_contacts
from storage.postgres.journeys import Contact, find_contacts, list_journey
from storage.postgres.listing.contacts import list_contacts
from storage.postgres.listing.cursors import BadCursor, encode_cursor
from tests.postgres import people
from tests.postgres.drains import Bench
from tests.postgres.people import Row, Tables
from tests.postgres.test_cohorts import is_meant

NOW = datetime.now(UTC)
SOME_TIME = datetime(2026, 11, 1, 12, tzinfo=UTC)
EVER = ContactFilter(joined_since=datetime(2000, 1, 1, tzinfo=UTC), joined_until=NOW + timedelta(days=1))


@pytest.fixture
async def conn(town: tuple[str, Tables]) -> AsyncIterator[Connection]:
    """A connection to it."""
    conn = await connect(town[0])
    yield conn
    await conn.close()


@pytest.fixture
def tables(town: tuple[str, Tables]) -> Tables:
    """All that is in it."""
    return town[1]


def steps(tables: Tables, contact_id: str) -> list[tuple[datetime, UUID, str]]:
    """Everything that the contact did, in order."""
    found = [(row["clicked_at"], row["click_id"], "click") for row in tables.clicks if row["contact_id"] == contact_id]
    views = [row for row in tables.impressions if row["contact_id"] == contact_id]
    found += [(row["clicked_at"], row["click_id"], "impression") for row in views]
    sales = [row for row in tables.conversions if row["contact_id"] == contact_id]
    found += [(row["converted_at"], row["conversion_id"], "conversion") for row in sales]
    return sorted(found)


async def walk(conn: Connection, contact_id: str, limit: int) -> list[Row]:
    """All pages of a journey."""
    events, cursor = [], ""
    while True:
        page = await list_journey(conn, contact_id, cursor, limit)
        assert len(page.events) <= limit
        events += page.events
        if page.next_cursor is None:
            return events
        cursor = page.next_cursor


async def test_a_journey_has_every_click_view_and_conversion_in_order(conn: Connection, tables: Tables) -> None:
    """Page by page nothing is missing and nothing twice; each step says what it was worth."""
    kinds = set()
    for contact in tables.contacts[:20]:
        for limit in (1, 4, 1000):
            events = await walk(conn, contact["contact_id"], limit)
            assert [(one["at"], one["id"], one["kind"]) for one in events] == steps(tables, contact["contact_id"])
        kinds |= {one["kind"] for one in events}
        sold = {row["conversion_id"]: row for row in tables.conversions}
        clicked = {row["click_id"]: row for row in (*tables.clicks, *tables.impressions)}
        for one in events:
            row = (sold if one["kind"] == "conversion" else clicked)[one["id"]]
            assert (one["revenue"], one["payout"], one["currency"]) == (row["revenue"], row["payout"], row["currency"])
            assert one["status"] == row["status" if one["kind"] == "conversion" else "outcome"]
            assert one["utm_source"] == row.get("utm_source", "")
            assert one["click_id"] == (row["click_id"] if one["kind"] == "conversion" else None)
    assert kinds == {"click", "impression", "conversion"}


def check(tables: Tables, contact: Contact) -> None:
    """The contact's figures are what its rows say."""
    mine = Tables(*([row for row in rows if row["contact_id"] == contact.contact_id] for rows in tables))
    approved = [row for row in mine.conversions if row["status"] == "approved"]
    invalid = {"bot", "prefetch", "datacentre"}
    figures = contact.figures
    assert figures.gross_clicks == len(mine.clicks)
    assert figures.clicks == sum(invalid.isdisjoint(row["flags"]) for row in mine.clicks)
    assert (figures.impressions, figures.conversions) == (len(mine.impressions), len(approved))
    money: dict[str, Any] = {}
    for row in (*approved, *mine.clicks, *mine.impressions):
        sums = money.setdefault(row["currency"], [0, Decimal(0), Decimal(0), Decimal(0)])
        added = (int("status" in row), row.get("amount", 0), row["revenue"], row["payout"])
        money[row["currency"]] = [before + more for before, more in zip(sums, added, strict=True)]
    assert {one.currency: list(one[1:]) for one in figures.money} == {
        currency: sums for currency, sums in money.items() if any(sums)
    }
    clicks = sorted(mine.clicks, key=lambda row: row["click_id"])
    for place, touch in ((0, contact.first), (-1, figures.last)):
        expected = {name: clicks[place][name] for name in ("clicked_at", *UTM)} if clicks else None
        assert touch == expected
    [row] = mine.contacts
    assert (contact.signed_up_at, contact.first_seen_at) == (row["signed_up_at"], row["first_seen_at"])
    assert (contact.list, contact.extras) == (people.list_of(tables, row), row["extras"])


async def test_contacts_have_their_figures_and_first_and_last_touch(conn: Connection, tables: Tables) -> None:
    """Clicks, conversions and money of each currency apart; deleted ones and unknown ones are not shown."""
    wanted = [row["contact_id"] for row in tables.contacts] + ["nobody"]
    found = await find_contacts(conn, wanted)
    alive = [row["contact_id"] for row in tables.contacts if row["deleted_at"] is None]
    assert [one.contact_id for one in found] == alive
    assert len(alive) < len(tables.contacts)
    for contact in found:
        check(tables, contact)
    assert {len(one.figures.money) for one in found} >= {0, 1, 2}


async def pages(conn: Connection, wanted: ContactFilter, limit: int) -> list[str]:
    """The ids of all pages."""
    ids, cursor = [], ""
    while True:
        page = await list_contacts(conn, wanted, cursor, limit)
        ids += [one.contact_id for one in page.contacts]
        if page.next_cursor is None:
            return ids
        assert len(page.contacts) == limit
        cursor = page.next_cursor


async def test_lists_of_contacts_are_those_that_the_filter_means(conn: Connection, tables: Tables) -> None:
    """Newest first, in pages of any size; by list, sign-up, first UTM, and whether anything was bought."""
    random = Random(23)
    for _ in range(40):
        since = NOW - timedelta(days=random.randrange(10, 70))
        utm = {random.choice(("utm_source", "utm_campaign")): ("mail", "spring", "")} if random.random() < 0.4 else {}
        who = ContactFilter(
            random.choice(((), ("news",), ("cold", "vip"))), since, since + timedelta(days=random.randrange(10, 70)),
            random.choice((None, True, False)), utm,
        )  # fmt: skip
        meant = [row for row in tables.contacts if row["deleted_at"] is None and is_meant(tables, row, who)]
        meant.sort(key=lambda row: (row["joined_at"], row["contact_id"]), reverse=True)
        assert await pages(conn, who, random.choice((1, 3, 50))) == [row["contact_id"] for row in meant]


async def test_contacts_of_whom_nobody_knows_when_they_came_are_last(embedded_bench: Bench) -> None:
    """They are in the list, page by page, and in no list that asks for a time."""
    conn = embedded_bench.conn
    rows = [ContactRow("b"), ContactRow("c", "", NOW), ContactRow("a"), ContactRow("d", "", NOW - timedelta(days=1))]
    await upsert_contacts(conn, rows)
    assert await pages(conn, ContactFilter(), 1) == ["c", "d", "b", "a"]
    assert await pages(conn, EVER, 3) == ["c", "d"]


@pytest.mark.parametrize(
    "cursor",
    ["x", "%%%", "bnVsbA", encode_cursor([1, 2]), encode_cursor(["2026-01-01", "a"]), encode_cursor([SOME_TIME]),
     encode_cursor(["nonsense", "a"]), encode_cursor([SOME_TIME, "a\0b"]), "é", "[" * 5000],
)  # fmt: skip
async def test_a_cursor_that_no_list_gave_is_refused(conn: Connection, cursor: str) -> None:
    """Before anything is looked up."""
    with pytest.raises(BadCursor):
        await list_contacts(conn, EVER, cursor)
