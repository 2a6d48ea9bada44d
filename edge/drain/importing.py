"""Clicks of another tracker into the tables, as if they had come here: a batch a transaction.

Ids are minted as worker 63 at the click's own millisecond (or, where 4096 have been used up, the next), so that row,
partition and attribution window are those of the original click. It earns nothing: the other tracker has paid for it.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from edge.drain.caps import CapJudge
from edge.drain.catalogs import CatalogHistory
from edge.drain.rows import RowMaker
from edge.enrich import Enricher
from edge.imports.click_rows import ForeignClick, Vendor
from edge.settings import Settings
from edge.tracking.catalog import Catalog
from edge.tracking.click_id import LAST_SEQUENCE, compose, sequence_of
from edge.tracking.payouts import ZERO
from edge.tracking.surroundings import UNKNOWN_PLACE, Place
from edge.tracking.tombstones import click_hash
from storage.journal.events import Click, Session
from storage.postgres.connection import Connection, is_missing_partition
from storage.postgres.contacts import Sightings, upsert_contacts
from storage.postgres.copy import TouchRow
from storage.postgres.erasures import find_erased_clicks
from storage.postgres.imports import claim_ids, known_ids, last_ids, lock_imports
from storage.postgres.installation import recall
from storage.postgres.partitions import Partitions, day_of_id
from storage.postgres.stats import Deltas, upsert
from storage.postgres.touch_copy import copy_rows

WORKER_ID = 63


class Imported(NamedTuple):
    """What became of a batch: stored now, and known from before."""

    stored: int
    known: int


class _StatedPlaces(Enricher):
    """Where our own database says that a click was, else where the other tracker said."""

    stated = UNKNOWN_PLACE

    def place(self, ip: str) -> Place:
        found = super().place(ip)
        return found if found.country else self.stated


class ClickImporter:
    """Stores the clicks of one file. Two at once are safe: they take turns."""

    def __init__(self, settings: Settings, catalog: Catalog, vendor: Vendor) -> None:
        """`settings`: with the secrets of the node that these clicks become clicks of."""
        self._settings = settings
        self._catalog = catalog
        self._vendor = vendor
        self._enricher = _StatedPlaces.of(settings)
        self._rows = RowMaker(self._enricher, settings)
        self._partitions = Partitions()
        self._history = CatalogHistory()

    async def store(self, conn: Connection, clicks: Sequence[ForeignClick]) -> Imported:
        """Store those that are not known yet."""
        try:
            return await self._store(conn, clicks)
        except Exception as error:
            if not is_missing_partition(error):
                raise
            self._partitions.forget()
            return await self._store(conn, clicks)

    async def count(self, conn: Connection, clicks: Sequence[ForeignClick]) -> Imported:
        """What `store` would do; nothing is changed."""
        unique = {click.transaction_id for click in clicks}
        known = await known_ids(conn, unique)
        return Imported(len(unique) - len(known), len(clicks) - len(unique) + len(known))

    async def _store(self, conn: Connection, clicks: Sequence[ForeignClick]) -> Imported:
        await self._partitions.ensure(conn, _days(clicks))
        async with conn.transaction():
            await lock_imports(conn)
            fresh = {click.transaction_id: click for click in reversed(clicks)}
            for known in await known_ids(conn, fresh):
                del fresh[known]
            minted = await self._mint(conn, fresh)
            # A click that came here under this very id meanwhile keeps it.
            won = await claim_ids(conn, minted)
            deltas, contacts = Deltas(), Sightings()
            await copy_rows(conn, "clicks", self._make_rows({one: minted[one] for one in won}, fresh, deltas, contacts))
            deltas.clear("payout", "revenue")
            zone = ZoneInfo(await recall(conn, "timezone", self._settings.timezone))
            await CapJudge(self._history, zone).count(conn, deltas, datetime.now(UTC))
            await upsert_contacts(conn, contacts.rows())
            await upsert(conn, deltas)
        return Imported(len(won), len(clicks) - len(won))

    async def _mint(self, conn: Connection, fresh: Mapping[str, ForeignClick]) -> dict[str, bytes]:
        """An id that nobody has for each click. Only while the imports' lock is held."""
        node_id, secret = self._settings.node_id, self._settings.secrets[0]
        free = await self._free(conn, {click.ms for click in fresh.values()})
        full_until: dict[int, int] = {}
        minted: dict[str, bytes] = {}
        missing = sorted(fresh.items(), key=lambda item: (item[1].ms, item[0]))
        while missing:
            for transaction_id, click in missing:
                ms = full_until.get(click.ms, click.ms)
                while (free[ms] if ms in free else (await self._look(conn, free, ms))) > LAST_SEQUENCE:
                    ms += 1
                full_until[click.ms] = ms
                minted[transaction_id] = compose(secret, ms, free[ms], WORKER_ID, node_id)
                free[ms] += 1
            # Of an erased click no row says that its id was used; conversions still have it.
            hashes = {one: click_hash(minted[one]) for one, _ in missing}
            erased = await find_erased_clicks(conn, hashes.values())
            missing = [one for one in missing if hashes[one[0]] in erased]
        return minted

    async def _look(self, conn: Connection, free: dict[int, int], ms: int) -> int:
        free.update(await self._free(conn, {ms}))
        return free[ms]

    async def _free(self, conn: Connection, moments_ms: set[int]) -> dict[int, int]:
        """The first free sequence of each millisecond."""
        last = await last_ids(conn, self._settings.node_id, WORKER_ID, moments_ms)
        return {ms: 0 if found is None else sequence_of(found) + 1 for ms, found in last.items()}

    def _make_rows(
        self, minted: Mapping[str, bytes], fresh: Mapping[str, ForeignClick], deltas: Deltas, contacts: Sightings
    ) -> Iterator[TouchRow]:
        for transaction_id, click_id in sorted(minted.items(), key=lambda item: item[1]):
            click = fresh[transaction_id]
            self._enricher.stated = Place(click.country, click.region, click.city)
            event = self._event(click, click_id)
            row = self._rows.touch_row(event, event.session, self._catalog, deltas)
            if row.contact_id:
                contacts.see(row.contact_id, row.clicked_at, row.click_id)
            yield row._replace(payout=ZERO, revenue=ZERO)

    def _event(self, click: ForeignClick, click_id: bytes) -> Click:
        session = Session(
            click_id=click_id,
            revision=self._catalog.revision,
            offer_id=click.offer_id,
            aff_id=click.aff_id,
            landing_page_id=click.landing_page_id,
            creative_id=click.creative_id,
            contact_id=click.contact_id,
            ip=click.ip,
            user_agent=click.user_agent,
        )
        return Click(
            session=session,
            outcome="redirected",
            reason="",
            flags=["duplicate"] if click.is_duplicate else [],
            alias="",
            params={**click.params, "imported_from": self._vendor, "external_id": click.transaction_id},
            referrer=click.referrer,
            language=click.language,
            visitor=b"",
        )


def _days(clicks: Sequence[ForeignClick]) -> set[date]:
    """The days of the clicks, and of the second after each, where an id may have to move to."""
    return {day_of_id((click.ms + more).to_bytes(6, "big")) for click in clicks for more in (0, 1000)}
