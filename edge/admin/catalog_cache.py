"""The catalog in force, kept in the process: a request that changes nothing reads a number, not a table."""

from edge.tracking.catalog import Catalog
from storage.postgres.catalog import Connection, load_changes, load_revision


class CatalogCache:
    """What was read last. It is never ahead of what is committed."""

    def __init__(self) -> None:
        self._held = Catalog.empty()

    async def current(self, conn: Connection) -> Catalog:
        """The catalog in force, as this connection sees it."""
        revision, held = await load_revision(conn), self._held
        if revision == held.revision:
            return held
        # A number that shrinks: the database was restored from a backup.
        if revision < held.revision:
            held = Catalog.empty()
        # Rows of stored revisions do not change (C2), so that these two statements agree without a snapshot.
        catalog = held.changed(revision, await load_changes(conn, held.revision, revision))
        if not conn.is_in_transaction():
            self._held = catalog
        return catalog
