"""The catalog as the console shows it: kept between requests, brought up to date at each."""

from collections.abc import Iterator
from typing import Any

from edge.admin.catalog_cache import CatalogCache
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import Advertiser, Offer, Partner, decode_item
from storage.postgres.connection import Connection


class KnownCatalog:
    """The newest revision anybody asked for, and its items, each decoded once."""

    def __init__(self) -> None:
        self.cache = CatalogCache()
        self._decoded: dict[str, dict[str, tuple[bytes, Any]]] = {}

    async def current(self, conn: Connection) -> Catalog:
        """The catalog in force."""
        return await self.cache.current(conn)

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
