"""The catalog in force, kept in the process: a request that changes nothing reads a number, not a table."""

from datetime import datetime

from edge.tracking.catalog import Catalog
from storage.postgres.catalog import Connection, load_changes, load_revision_since


class CatalogCache:
    """What was read last. It is never ahead of what is committed."""

    def __init__(self) -> None:
        self._held = Catalog.empty()
        self._stored_at: datetime | None = None
        """When the revision held was stored; None: there is none."""

    async def current(self, conn: Connection) -> Catalog:
        """The catalog in force, as this connection sees it."""
        held, held_at = self._held, self._stored_at
        revision, stored_at = await load_revision_since(conn, held.revision)
        if stored_at != held_at:  # the database was restored from a backup: it has another of that number, or none
            held = Catalog.empty()
        elif revision == held.revision:
            return held
        # Rows of stored revisions do not change (C2), so that these two statements agree without a snapshot.
        catalog = held.changed(revision, await load_changes(conn, held.revision, revision))
        if not conn.is_in_transaction():
            _, stored_at = await load_revision_since(conn, revision)
            self._held, self._stored_at = catalog, stored_at
        return catalog
