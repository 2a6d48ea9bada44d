"""Rows of one kind of file into the tables: read one by one, taken in by batches, what became of each told.

`read` does no I/O, so that it may run beside the event loop; `take` and `finish` use the run's one connection.
"""

from collections.abc import Sequence
from datetime import tzinfo
from typing import Literal, NamedTuple, Protocol, TypeVar

import msgspec

from edge.drain.catalogs import CatalogHistory
from edge.drain.sale_changes import find_difference, make_it_so
from edge.drain.sale_import import SaleImporter, Terms
from edge.drain.sifting import Sifted
from edge.errors import UserError
from edge.imports.columns import Columns, Kind, Vendor
from edge.imports.contact_rows import PersonRow, read_person
from edge.imports.cost_rows import CostRow, read_cost
from edge.imports.sale_rows import SaleRow, read_sale
from edge.imports.values import Calendar, Mark
from edge.settings import Settings
from edge.tracking.catalog import Catalog
from edge.tracking.changes import ChangeRefused
from storage.postgres.catalog import load_current
from storage.postgres.connection import Connection
from storage.postgres.contacts import ContactRow, find_deleted, upsert_contacts
from storage.postgres.cost_feeds import Cost, compare_feed, find_too_large, gather, merge_feed, open_feed

Fate = Literal["stored", "known", "differ", "changed", "skipped", "rejected"]


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """How the user wants a file imported. `tolerance_s`: between a sale and its postback."""

    kind: Kind
    vendor: Vendor | None = None
    mapped: dict[str, str] = {}
    constants: dict[str, str] = {}
    date_format: str = ""
    decimal: Mark = ""
    dry_run: bool = False
    update: bool = False
    postbacks: bool = True
    tolerance_s: int = 86_400
    feed: str = ""
    actor: str = ""


class Plan(Choices, frozen=True, kw_only=True):
    """An import as it is run. `zone`: of times that name none."""

    zone: tzinfo


class Outcome(NamedTuple):
    """What became of a row, or of so many."""

    fate: Fate
    line: int
    values: list[str]
    text: str = ""
    rows: int = 1


R = TypeVar("R")


class Taker(Protocol[R]):
    """One kind of file."""

    async def begin(self, conn: Connection) -> None:
        """Once, before the first batch."""

    def read(self, line: int, values: list[str], columns: Columns, calendar: Calendar) -> R:
        """The row; ValueFault says what is wrong with it."""

    async def take(self, conn: Connection, rows: Sequence[R]) -> list[Outcome]:
        """Store a batch."""

    async def finish(self, conn: Connection) -> list[Outcome]:
        """Once, after the last batch."""


def make_taker(settings: Settings, plan: Plan, import_id: int) -> "Taker[SaleRow] | Taker[CostRow] | Taker[PersonRow]":
    """The taker of that kind of file."""
    if plan.kind == "costs":
        return CostTaker(plan)
    return PersonTaker(plan) if plan.kind == "contacts" else SaleTaker(settings, plan, import_id)


class SaleTaker:
    """Conversions."""

    def __init__(self, settings: Settings, plan: Plan, import_id: int) -> None:
        terms = Terms(import_id, plan.tolerance_s, plan.postbacks, plan.dry_run)
        self._importer = SaleImporter(settings, terms)
        self._history = CatalogHistory()
        self._plan = plan
        self._import_id = import_id

    async def begin(self, conn: Connection) -> None:
        """Once, before the first batch."""
        await self._importer.begin(conn)

    def read(self, line: int, values: list[str], columns: Columns, calendar: Calendar) -> SaleRow:
        """The conversion in a row."""
        return read_sale(line, values, columns, calendar, self._plan.decimal)

    async def take(self, conn: Connection, rows: Sequence[SaleRow]) -> list[Outcome]:
        """Store the new ones of a batch; with `update`, change those that differ, each in a transaction of its own."""
        sifted = sorted(await self._importer.store(conn, rows), key=lambda one: one.row.line)
        return [await self._outcome(conn, one) for one in sifted]

    async def finish(self, conn: Connection) -> list[Outcome]:
        """Nothing is left to do."""
        return []

    async def _outcome(self, conn: Connection, one: Sifted) -> Outcome:
        row = one.row
        if one.fate == "fresh":
            return Outcome("stored", row.line, row.values)
        if one.fate == "skipped":
            return Outcome("skipped", row.line, row.values, f"{row.status} in the file, and not known here")
        if one.heard is None:
            return Outcome("rejected", row.line, row.values, one.reason)
        difference = find_difference(row, one.heard)
        if difference is None:
            return Outcome("known", row.line, row.values)
        if not self._plan.update:
            return Outcome("differ", row.line, row.values, difference.text)
        if self._plan.dry_run:
            return Outcome("changed", row.line, row.values, difference.text)
        note = f"import {self._import_id}, line {row.line}"
        try:
            await make_it_so(
                conn,
                self._history,
                one.heard.conversion_id,
                difference,
                actor=self._plan.actor,
                note=note,
                tells_partners=self._plan.postbacks,
            )
        except ChangeRefused as refused:
            return Outcome("rejected", row.line, row.values, f"{difference.text}: {refused}")
        return Outcome("changed", row.line, row.values, difference.text)


class CostTaker:
    """Costs and sends: nothing is seen of them before the file's end."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._catalog = Catalog.empty()

    async def begin(self, conn: Connection) -> None:
        """Once, before the first batch."""
        self._catalog = Catalog.empty().changed(*await load_current(conn))
        await open_feed(conn)

    def read(self, line: int, values: list[str], columns: Columns, calendar: Calendar) -> CostRow:
        """The costs in a row."""
        return read_cost(line, values, columns, calendar, self._plan.decimal)

    async def take(self, conn: Connection, rows: Sequence[CostRow]) -> list[Outcome]:
        """Gather a batch; only what is wrong with it is told."""
        refused, good = [], []
        for row in rows:
            currency = row.currency or self._currency_of(row.offer_id)
            if fault := self._fault_of(row, currency):
                refused.append(Outcome("rejected", row.line, row.values, fault))
            else:
                good.append(Cost(*row[2:7], currency, row.amount, row.sends))
        await gather(conn, good)
        return refused

    async def finish(self, conn: Connection) -> list[Outcome]:
        """All that was gathered becomes the feed's word, at once. UserError if a sum is too large."""
        if large := await find_too_large(conn):
            raise UserError(f"the sum of {large[0]}, {large[1]:f}, is too large to store: nothing is stored")
        if self._plan.dry_run:
            merged = await compare_feed(conn, self._plan.feed)
        else:
            async with conn.transaction():
                merged = await merge_feed(conn, self._plan.feed)
        return [Outcome("stored", 0, [], rows=merged.stored), Outcome("known", 0, [], rows=merged.known)]

    def _currency_of(self, offer_id: int) -> str:
        offer = self._catalog.offer(offer_id) if offer_id else None
        return offer.currency if offer else ""

    def _fault_of(self, row: CostRow, currency: str) -> str:
        if row.offer_id and self._catalog.offer(row.offer_id) is None:
            return f"the catalog has no offer {row.offer_id}"
        if row.aff_id and self._catalog.partner(row.aff_id) is None:
            return f"the catalog has no partner {row.aff_id}"
        if row.amount and not currency:
            return "it has no currency, and no offer that has one: say --set currency=USD"
        return ""


class PersonTaker:
    """Contacts."""

    def __init__(self, plan: Plan) -> None:
        self._is_rehearsal = plan.dry_run

    async def begin(self, conn: Connection) -> None:
        """Once, before the first batch."""

    def read(self, line: int, values: list[str], columns: Columns, calendar: Calendar) -> PersonRow:
        """The contact in a row."""
        return read_person(line, values, columns, calendar)

    async def take(self, conn: Connection, rows: Sequence[PersonRow]) -> list[Outcome]:
        """Store a batch; what is said again wins, and a deleted contact stays as it is."""
        deleted = await find_deleted(conn, {row.contact_id for row in rows})
        kept = [row for row in rows if row.contact_id not in deleted]
        skipped = [
            Outcome("skipped", row.line, row.values, "the contact was deleted")
            for row in rows
            if row.contact_id in deleted
        ]
        transaction = conn.transaction()
        await transaction.start()
        try:
            done = await upsert_contacts(
                conn, [ContactRow(row.contact_id, row.list, row.signed_up_at, extras=row.extras) for row in kept]
            )
        except BaseException:
            await transaction.rollback()
            raise
        await (transaction.rollback() if self._is_rehearsal else transaction.commit())
        same = len({row.contact_id for row in kept}) - done.added - done.changed
        counts: list[tuple[Fate, int]] = [("stored", done.added), ("changed", done.changed), ("known", same)]
        return [*skipped, *(Outcome(fate, 0, [], rows=count) for fate, count in counts if count)]

    async def finish(self, conn: Connection) -> list[Outcome]:
        """Nothing is left to do."""
        return []
