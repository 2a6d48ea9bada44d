"""The catalog as it was at any revision: events are judged by the revision that was in force when they happened."""

from collections import OrderedDict
from collections.abc import Iterable

from edge.tracking.catalog import Catalog
from storage.postgres.catalog import load_at, load_changes, load_revision
from storage.postgres.connection import Connection

KEPT_REVISIONS = 16


class CatalogHistory:
    """Recent revisions, each made from its predecessor where that is at hand."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, Catalog] = OrderedDict([(0, Catalog.empty())])
        self._lost: set[int] = set()
        """Those that the database did not have: it was restored, and will give these numbers away once more."""

    def at(self, revision: int) -> Catalog:
        """A revision that `load` was asked for before."""
        return self._known[revision]

    async def load(self, conn: Connection, revisions: Iterable[int]) -> None:
        """Have `revisions` at hand; more than are kept if a batch needs more."""
        wanted = sorted(set(revisions))
        for revision in wanted:
            if revision not in self._known or revision in self._lost:
                self._known[revision] = await self._build(conn, revision)
            self._known.move_to_end(revision)
        while len(self._known) > max(KEPT_REVISIONS, len(wanted)):
            self._known.popitem(last=False)

    async def _build(self, conn: Connection, revision: int) -> Catalog:
        if revision > await load_revision(conn):
            self._lost.add(revision)
        else:
            self._lost.discard(revision)
        nearest = max((known for known in self._known.keys() - self._lost if 0 < known < revision), default=0)
        if nearest:
            return self._known[nearest].changed(revision, await load_changes(conn, nearest, revision))
        return Catalog.empty().changed(revision, await load_at(conn, revision))
