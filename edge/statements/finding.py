"""Statements of a database: one party's, or all of a month."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from operator import attrgetter
from typing import NamedTuple, Self, TypeVar

from edge.closing import span_in_force
from edge.errors import UserError
from edge.statements.building import Names, build_statement
from edge.statements.statement import PartyKind, Statement
from storage.postgres.connection import Connection
from storage.postgres.installation import recall
from storage.postgres.statements import (
    AdjustedConversion,
    Party,
    Span,
    StatedLine,
    adjusted_conversions,
    catalog_names,
    compute_lines,
    find_closed,
    keep_lines,
    kept_lines,
)

T = TypeVar("T", AdjustedConversion, StatedLine)
_LATE_MONTHS_SHOWN = timedelta(days=92)
"""While a month is open, late clicks are looked for in so much before it; when it is closed, in everything."""


class Whose(NamedTuple):
    """One party; id 0: all of that kind."""

    party: PartyKind
    id: int = 0

    @property
    def stored(self) -> Party:
        """As storage asks for it."""
        return Party(aff_id=self.id) if self.party == "partner" else Party(advertiser_id=self.id)


async def find_statement(conn: Connection, month: date, whose: Whose, *, now: datetime) -> Statement | None:
    """That party's statement; None if the catalog has never had the party. UserError for a month that has not begun."""
    async with _Snapshot(conn, month, now) as snapshot:
        names = await snapshot.names()
        if names.party(*whose) is None:
            return None
        lines = await snapshot.lines(whose.stored)
        return build_statement(snapshot.span, *whose, names, lines, await snapshot.changed(whose.stored, lines))


async def find_statements(conn: Connection, month: date, party: PartyKind, *, now: datetime) -> list[Statement]:
    """All parties of that kind that have anything to be told, by id."""
    async with _Snapshot(conn, month, now) as snapshot:
        names = await snapshot.names()
        lines = await snapshot.lines(Party())
        changed = await snapshot.changed(Party(), lines)
        by_id, changed_by_id = _by_party(lines, party), _by_party(changed, party)
        return [
            build_statement(snapshot.span, party, party_id, names, found, changed_by_id.get(party_id, []))
            for party_id, found in sorted(by_id.items())
            if party_id
        ]


def _by_party(rows: Iterable[T], party: PartyKind) -> dict[int, list[T]]:
    id_of = attrgetter("aff_id" if party == "partner" else "advertiser_id")
    found: dict[int, list[T]] = {}
    for row in rows:
        found.setdefault(id_of(row), []).append(row)
    return found


class _Snapshot:
    """A month as the database has it at one moment, in a transaction that reads."""

    def __init__(self, conn: Connection, month: date, now: datetime) -> None:
        self._conn = conn
        self._month = month
        self._now = now
        self._transaction = conn.transaction(isolation="repeatable_read", readonly=True)

    async def __aenter__(self) -> Self:
        closed = await find_closed(self._conn, self._month)
        if closed and closed.catalog_revision is None:
            # Closed by an earlier release, or by a command that was killed before it had kept the lines.
            await keep_lines(self._conn, self._month, await recall(self._conn, "timezone", "UTC"))
        await self._transaction.start()
        try:
            self.span = await self._find_span()
        except BaseException:
            await self._transaction.rollback()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._transaction.rollback()

    async def _find_span(self) -> Span:
        if closed := await find_closed(self._conn, self._month):
            return closed
        span = await span_in_force(self._conn, self._month)
        if self._now < span.starts_at:
            raise UserError(f"{self._month:%Y-%m} has not begun")
        return Span(*span, timezone=await recall(self._conn, "timezone", "UTC"))

    async def names(self) -> Names:
        return Names(await catalog_names(self._conn, self.span.catalog_revision))

    async def lines(self, party: Party) -> list[StatedLine]:
        if self.span.closed_at:
            return await kept_lines(self._conn, self._month, party)
        return await compute_lines(self._conn, self.span, party, late_since=self._month - _LATE_MONTHS_SHOWN)

    async def changed(self, party: Party, lines: Sequence[StatedLine]) -> list[AdjustedConversion]:
        """The conversions behind the corrections among `lines`."""
        if not any(one.made_in < one.booked_in for one in lines):
            return []
        return await adjusted_conversions(self._conn, self.span, party)
