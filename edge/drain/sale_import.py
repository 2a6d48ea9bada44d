"""Conversions of a file into the tables: each judged and booked as a postback would be, a batch a transaction.

What is known already, by the rules of `sifting.py`, is left as it is; a file that was broken off is simply read again.
"""

import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import store_settled
from edge.drain.matching import Received
from edge.drain.rows import RowMaker, moment
from edge.drain.settle import Settled
from edge.drain.settlement import Settlement
from edge.drain.sifting import Sifted, Sifter
from edge.enrich import Enricher
from edge.imports.sale_rows import SaleRow
from edge.imports.values import Span
from edge.settings import Settings
from edge.tracking.catalog import Catalog
from edge.tracking.click_id import ClickIds, compose, ms_of
from edge.tracking.crediting import is_external_id
from edge.tracking.parameters import to_id
from storage.journal.events import Conversion
from storage.postgres.catalog import load_current
from storage.postgres.connection import Connection, is_poison
from storage.postgres.copy import Uuid
from storage.postgres.erasures import hold_erasures
from storage.postgres.external_ids import find_external_ids
from storage.postgres.imported import last_minted, open_run, remember_rows, revisions_after, take
from storage.postgres.imports import lock_imports
from storage.postgres.sessions import find_sessions
from storage.postgres.stats import Deltas

WORKER_ID = 63
EARLY_MS = 300_000
"""Clocks differ: a sale is believed to be after its click if it is said to be this much before it."""
_NO_JOURNAL = UUID(int=0)


class Terms(NamedTuple):
    """How a file of conversions is taken in. `tolerance_s`: how far apart a sale and its postback may be."""

    import_id: int
    tolerance_s: int = 86_400
    tells_partners: bool = True
    is_rehearsal: bool = False


class _NoLease:
    """For ids that are only verified."""

    start_ms = 0
    through_ms = 0

    def cover(self, ms: int) -> None:
        raise RuntimeError("nothing is minted here")


class _Click(NamedTuple):
    """The click that a row names. `click_id` empty: `text` is no id of ours, and may be another system's."""

    text: str
    click_id: bytes
    ms: int = 0
    min_seconds: int = 0


class SaleImporter:
    """Stores the conversions of one file. Two at once are safe: they take turns."""

    def __init__(self, settings: Settings, terms: Terms) -> None:
        """`settings`: with the secrets of the node that new conversions become conversions of."""
        self._settings = settings
        self._terms = terms
        self._ids = ClickIds(settings.secrets, settings.node_id, WORKER_ID, _NoLease())
        history = CatalogHistory()
        self._settlement = Settlement(RowMaker(Enricher.of(settings), settings), settings, history)
        self._revisions: list[tuple[datetime, int]] = []
        self._catalog = Catalog.empty()

    async def begin(self, conn: Connection) -> None:
        """Once, before the first batch, on the connection that all of them use."""
        await open_run(conn)

    async def store(self, conn: Connection, rows: Sequence[SaleRow]) -> list[Sifted]:
        """Store what is new of `rows`; what became of each, not necessarily in their order."""
        done: list[Sifted] = []
        while rows:
            sifted = await self._store_or_halve(conn, rows)
            done += (one for one in sifted if one.fate != "later")
            rows = [one.row for one in sifted if one.fate == "later"]
        return done

    async def _store_or_halve(self, conn: Connection, rows: Sequence[SaleRow]) -> list[Sifted]:
        try:
            return await self._store(conn, rows)
        except Exception as error:
            if not is_poison(error) or conn.is_closed():
                raise
            if len(rows) == 1:
                return [Sifted(rows[0], "rejected", UUID(int=0), f"the database refuses it: {error}"[:300])]
        middle = len(rows) // 2
        return [*await self._store_or_halve(conn, rows[:middle]), *await self._store_or_halve(conn, rows[middle:])]

    async def _store(self, conn: Connection, rows: Sequence[SaleRow]) -> list[Sifted]:
        await self._follow_catalog(conn)
        transaction = conn.transaction()
        await transaction.start()
        try:
            await hold_erasures(conn)
            await lock_imports(conn)
            sifted, taken = await self._settle(conn, rows)
        except BaseException:
            await transaction.rollback()
            raise
        if self._terms.is_rehearsal:
            await transaction.rollback()
        else:
            await transaction.commit()
        if self._terms.is_rehearsal:  # what is stored stands for one row only there too
            await take(conn, [pair for one, pair in zip(sifted, taken, strict=True) if one.fate == "known" and pair])
        return sifted

    async def _settle(
        self, conn: Connection, rows: Sequence[SaleRow]
    ) -> tuple[list[Sifted], list[tuple[UUID, UUID] | None]]:
        now_ms = time.time_ns() // 1_000_000
        clicks = await self._find_clicks(conn, rows)
        minted = await self._mint(conn, len(rows), now_ms)
        refused: list[Sifted] = []
        events: dict[bytes, Conversion] = {}
        by_id: dict[bytes, SaleRow] = {}
        for row, click, conversion_id in zip(rows, clicks, minted, strict=True):
            if fault := _fault_of(row, click, now_ms):
                refused.append(Sifted(row, "rejected", UUID(int=0), fault))
                continue
            events[conversion_id] = self._event(row, click, conversion_id, now_ms)
            by_id[conversion_id] = row
        sifter = Sifter(by_id, self._terms.tolerance_s)
        received = [Received(event, b"", _NO_JOURNAL) for event in events.values()]
        settled, _ = await self._settlement.settle(conn, received, {}, Deltas(), may_wait=False, sift=sifter.sift)
        await self._write(conn, settled)
        taken = [_taken(one, conversion_id) for one, conversion_id in zip(sifter.sifted, events, strict=True)]
        pairs = [pair for pair in taken if pair]
        await take(conn, pairs)
        await remember_rows(conn, pairs)
        return [*sifter.sifted, *refused], [*taken, *([None] * len(refused))]

    async def _write(self, conn: Connection, settled: Settled) -> None:
        if not self._terms.tells_partners:
            settled.postbacks.clear()
        await store_settled(conn, settled, Deltas())

    async def _follow_catalog(self, conn: Connection) -> None:
        newer = await revisions_after(conn, self._revisions[-1][1] if self._revisions else 0)
        if newer:
            self._revisions += newer
            self._catalog = Catalog.empty().changed(*await load_current(conn))

    def _revision_at(self, ms: int) -> int:
        """The catalog's revision in force then; the present one where there was none yet."""
        place = bisect_right(self._revisions, moment(ms), key=lambda one: one[0])
        return self._revisions[place - 1][1] if place else self._catalog.revision

    async def _find_clicks(self, conn: Connection, rows: Sequence[SaleRow]) -> list[_Click]:
        named = [self._named(row) for row in rows]
        external = await find_external_ids(conn, {one.text for one in named if not one.click_id and one.text})
        days = [one for one, row in zip(named, rows, strict=True) if row.when.is_day]
        ids = {one.click_id or external.get(one.text, b"") for one in days} - {b""}
        offers = {one: stored.offer_id for one, stored in (await find_sessions(conn, ids)).items()}
        found = []
        for one in named:
            click_id = one.click_id or external.get(one.text, b"")
            offer = self._catalog.offer(offers.get(click_id, 0))
            ms = ms_of(click_id) if click_id else 0
            found.append(one._replace(ms=ms, min_seconds=offer.min_seconds_to_convert if offer else 0))
        return found

    def _named(self, row: SaleRow) -> _Click:
        """The click of ours that one of the row's ids is, else what stands in the id's own column."""
        for text in row.ids:
            if click_id := self._ids.parse(text):
                return _Click(text, click_id)
        return _Click(row.ids[0] if row.has_own_id else "", b"")

    async def _mint(self, conn: Connection, count: int, now_ms: int) -> list[bytes]:
        """Ids that nobody has. Only while the imports' lock is held, and at most 4096."""
        last = await last_minted(conn, WORKER_ID, Uuid(now_ms.to_bytes(6, "big") + bytes(10)))
        ms = max(now_ms, ms_of(last) + 1) if last else now_ms
        return [compose(self._settings.secrets[0], ms, n, WORKER_ID, self._settings.node_id) for n in range(count)]

    def _event(self, row: SaleRow, click: _Click, conversion_id: bytes, now_ms: int) -> Conversion:
        at_ms = _moment_of(row.when, click, now_ms)
        params = dict(row.params)
        params["datetime"] = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
        params["import_id"] = str(self._terms.import_id)
        if row.amount is not None:
            params["amount"] = f"{row.amount:f}"
        said = {"currency": row.currency, "goal_name": row.goal_name, "goal_id": row.goal_id}
        params |= {name: value for name, value in said.items() if value}
        if row.status == "pending":
            params["status"] = "pending"
        is_known = self._catalog.offer(row.offer_id) is not None
        return Conversion(
            conversion_id,
            self._revision_at(at_ms),
            now_ms,
            "import",
            click.text,
            click.click_id,
            b"",
            row.offer_id if is_known else 0,
            to_id(row.goal_id),
            params,
            "",
            "",
            "",
            is_external=not click.click_id and is_external_id(click.text),
        )


def _fault_of(row: SaleRow, click: _Click, now_ms: int) -> str:
    """What is wrong with a row beside its click; "" for nothing."""
    if row.when.from_ms > now_ms + EARLY_MS:
        return f"its date, {_shown(row.when.from_ms)}, is in the future: is --timezone right?"
    if click.ms and row.when.to_ms + EARLY_MS < click.ms:
        return (
            f"its date, {_shown(row.when.from_ms)}, is before its click, {_shown(click.ms)}:"
            " is --timezone right, and the column of the date?"
        )
    if not (click.text or row.params.keys() & {"contact_id", "aff_id", "promo_code"}):
        return "it has no click id"
    return ""


def _moment_of(when: Span, click: _Click, now_ms: int) -> int:
    """The moment that a row means; of a whole day the earliest that its click allows."""
    earliest = max(when.from_ms, click.ms + click.min_seconds * 1000) if when.is_day else when.from_ms
    return min(earliest, max(when.from_ms, when.to_ms - 1), now_ms)


def _taken(one: Sifted, conversion_id: bytes) -> tuple[UUID, UUID] | None:
    """The event that stands for the row from now on, and the row."""
    if one.fate == "fresh":
        return UUID(bytes=conversion_id), one.row_hash
    return (one.heard.event_id, one.row_hash) if one.heard and one.fate == "known" else None


def _shown(ms: int) -> str:
    return moment(ms).isoformat(sep=" ", timespec="seconds")


def by_fate(sifted: Sequence[Sifted]) -> Mapping[str, int]:
    """How many rows met each fate."""
    counts: dict[str, int] = {}
    for one in sifted:
        counts[one.fate] = counts.get(one.fate, 0) + 1
    return counts
