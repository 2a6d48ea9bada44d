"""The catalog as the console shows it: kept between requests, brought up to date at each."""

from collections.abc import Iterator

from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import Advertiser, Offer, Partner, decode_item
from storage.postgres.catalog import Connection, load_changes, load_current, load_revision


class KnownCatalog:
    """The newest revision anybody asked for."""

    def __init__(self) -> None:
        self._catalog = Catalog.empty()
        self._decoded: dict[str, dict[int, tuple[bytes, Advertiser | Partner | Offer]]] = {}

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

    def items(self, catalog: Catalog, kind: str) -> Iterator[Advertiser | Partner | Offer]:
        """A table's items by id; each is decoded once."""
        before, kept = self._decoded.get(kind, {}), {}
        for item_id, body in sorted((int(item_id), body) for item_id, body in catalog.bodies(kind).items()):
            known = before.get(item_id)
            if known is None or known[0] != body:
                known = (body, decode_item(kind, body))  # type: ignore[assignment]
            kept[item_id] = known
        self._decoded[kind] = kept  # type: ignore[assignment]
        return iter([item for _, item in kept.values()])  # type: ignore[misc]
