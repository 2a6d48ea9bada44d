"""The rules of a replay: at each revision the catalog that was in force then, with the changed items in it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from edge.drain.catalogs import KEPT_REVISIONS, CatalogHistory
from edge.tracking.catalog import Catalog, Change
from edge.tracking.catalog_diff import ItemChange, describe, find_changes
from edge.tracking.catalog_document import Advertiser, Offer
from edge.tracking.catalog_file import read_catalog
from storage.postgres.catalog import load_at, load_revision
from storage.postgres.connection import Connection

TRUSTED = "trusted"
"""The token of every advertiser in a replay: tokens that were sent are not stored, and what they proved stays proved."""


class RuleChange(NamedTuple):
    """What a file changes in the catalog in force. `diff`: the same in words."""

    changes: tuple[ItemChange, ...] = ()
    diff: tuple[str, ...] = ()

    @property
    def bodies(self) -> list[Change]:
        """The changed items as they are stored."""
        return [(one.kind, one.item_id, one.body) for one in self.changes]

    def ids(self, kind: str) -> set[int]:
        """Of a table, the items that change."""
        return {int(one.item_id) for one in self.changes if one.kind == kind}

    def offers(self, differ: Callable[[Offer | None, Offer | None], bool]) -> set[int]:
        """The offers that change in what `differ` looks at."""
        offers = [one for one in self.changes if one.kind == "offers"]
        return {int(one.item_id) for one in offers if differ(_offer(one.before), _offer(one.after))}


async def read_rules(conn: Connection, text: str, file: str) -> RuleChange:
    """What the file would change; CatalogFaults. Nothing is stored."""
    revision = await load_revision(conn)
    existing = Catalog.empty().changed(revision, await load_at(conn, revision))
    changes = tuple(find_changes(read_catalog(text, file, existing), existing, prune=False))
    return RuleChange(changes, tuple(line for change in changes for line in describe(change)))


class ReplayHistory(CatalogHistory):
    """Every revision with the changed items in it; every advertiser's token is TRUSTED, and any address may send."""

    def __init__(self, changes: Sequence[Change]) -> None:
        super().__init__()
        self._changes = changes
        self._seen: dict[int, tuple[Catalog, Catalog]] = {}

    def stored_at(self, revision: int) -> Catalog:
        """The revision as it was."""
        return super().at(revision)

    def at(self, revision: int) -> Catalog:
        stored = super().at(revision)
        seen = self._seen.get(revision)
        if seen is None or seen[0] is not stored:
            while len(self._seen) >= KEPT_REVISIONS:
                del self._seen[next(iter(self._seen))]
            seen = self._seen[revision] = stored, self._changed(stored)
        return seen[1]

    def _changed(self, stored: Catalog) -> Catalog:
        catalog = stored.changed(stored.revision, self._changes)
        find = catalog.advertiser

        def trusted(key: int | str) -> Advertiser | None:
            found = find(key)
            return replace(found, security_token=TRUSTED, signing_secret="", allowed_ips=()) if found else None

        catalog.advertiser = trusted
        return catalog


def _offer(item: object) -> Offer | None:
    return item if isinstance(item, Offer) else None
