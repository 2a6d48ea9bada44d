"""The catalog as the console shows it: kept between requests, brought up to date at each."""

from collections.abc import Iterator
from typing import Any

from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import Advertiser, Offer, Partner, decode_item
from storage.postgres.catalog import Connection, load_changes, load_current, load_revision


class KnownCatalog:
    """The newest revision anybody asked for."""

    def __init__(self) -> None:
        self._catalog = Catalog.empty()
        self._decoded: dict[str, dict[str, tuple[bytes, Any]]] = {}

    async def current(self, conn: Connection) -> Catalog:
        """The catalog in force. What did not change since the last request is not loaded again."""
        known, revision = self._catalog, await load_revision(conn)
        if known.revision == 0 or revision < known.revision:  # a restored database begins anew
            revision, items = await load_current(conn)
            self._catalog = Catalog.empty().changed(revision, items)
        elif revision > known.revision:
            changes = await load_changes(conn, known.revision, revision)
            self._catalog = known.changed(revision, changes)
        return self._catalog

    def advertisers(self, catalog: Catalog) -> list[Advertiser]:
        """All advertisers by id."""
        return list(self._items(catalog, "advertisers"))

    def partners(self, catalog: Catalog) -> list[Partner]:
        """All partners by id."""
        return list(self._items(catalog, "partners"))

    def offers(self, catalog: Catalog) -> list[Offer]:
        """All offers by id."""
        return list(self._items(catalog, "offers"))

    def offers_of(self, catalog: Catalog, advertiser_id: int) -> list[int] | None:
        """The ids of that advertiser's offers; None for advertiser 0: everybody's."""
        if not advertiser_id:
            return None
        return [offer.id for offer in self.offers(catalog) if offer.advertiser_id == advertiser_id]

    def _items(self, catalog: Catalog, kind: str) -> Iterator[Any]:
        """A table's items by id; each is decoded once."""
        before, kept = self._decoded.get(kind, {}), {}
        for item_id, body in catalog.bodies(kind).items():
            known = before.get(item_id)
            kept[item_id] = known if known and known[0] is body else (body, decode_item(kind, body))
        self._decoded[kind] = kept
        return iter([kept[item_id][1] for item_id in sorted(kept, key=int)])
