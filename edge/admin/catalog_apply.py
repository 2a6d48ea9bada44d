"""A catalog file into the database: validated, compared, stored as one revision."""

import hashlib

import msgspec

from edge.tracking.catalog import Catalog
from edge.tracking.catalog_diff import ItemChange, describe, find_changes, find_long_windows, find_warnings
from edge.tracking.catalog_file import read_catalog
from storage.postgres.catalog import (
    Connection,
    last_source_hash,
    load_current,
    store_revision,
    store_source_hash,
)
from storage.postgres.installation import clicks_kept_s


class ApplyResult(msgspec.Struct, frozen=True):
    """What an apply did, or with `--dry-run` would do. `revision`: the one in force afterwards."""

    revision: int
    created: int
    updated: int
    archived: int
    warnings: list[str]
    diff: list[str]


async def apply_text(
    conn: Connection, text: str, file: str, *, dry_run: bool = False, prune: bool = False, actor: str = "apply"
) -> ApplyResult:
    """Make the catalog say what `text` says of the items it names; with `prune`, archive all others.

    Nothing to change: no new revision. CatalogFaults changes nothing; CatalogMoved: somebody else was faster.
    """
    revision, items = await load_current(conn)
    existing = Catalog.empty().changed(revision, items)
    document = read_catalog(text, file, Catalog.empty() if prune else existing)
    changes = list(find_changes(document, existing, prune=prune))
    if not dry_run:
        revision = await _store(conn, changes, revision, _hash(text), actor, file)
    return ApplyResult(
        revision,
        created=sum(change.before is None for change in changes),
        updated=sum(change.before is not None and change.after is not None for change in changes),
        archived=sum(change.after is None for change in changes),
        warnings=find_warnings(document) + find_long_windows(document, await clicks_kept_s(conn)),
        diff=[line for change in changes for line in describe(change)],
    )


async def apply_if_new(conn: Connection, text: str, file: str, *, actor: str = "serve") -> ApplyResult | None:
    """`apply_text` if the file is not the one applied last, so that what was edited elsewhere since stays; else None."""
    if await last_source_hash(conn) == _hash(text):
        return None
    return await apply_text(conn, text, file, actor=actor)


async def _store(
    conn: Connection, changes: list[ItemChange], revision: int, source_hash: str, actor: str, file: str
) -> int:
    if changes:
        return await store_revision(
            conn,
            [(change.kind, change.item_id, change.body) for change in changes],
            base_revision=revision,
            actor=actor,
            note=file,
            source_hash=source_hash,
        )
    # Else a later edit elsewhere would be undone by the next `serve --apply` of this very file.
    await store_source_hash(conn, revision, source_hash)
    return revision


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
