"""One change of one catalog item: checked like a catalog file, shown as a diff, stored as one revision.

Console and API call the same functions. A change is worked out against the catalog in force; when somebody else stores
a revision meanwhile it is worked out anew, so that only a change of the very same item is a conflict.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from edge.admin.catalog_cache import CatalogCache
from edge.admin.catalog_documents import Json, etag_of, matches, pointer_of
from edge.errors import UserError
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_diff import ItemChange, describe, find_changes, find_warnings
from edge.tracking.catalog_document import TABLES, Alias, Item, Offer, Part, decode_item, item_id
from edge.tracking.catalog_fields import MAX_ID
from edge.tracking.catalog_file import CatalogFaults, Document, read_tables
from edge.tracking.catalog_references import find_faults, find_postback_faults
from storage.postgres.catalog import CatalogMoved, Connection, load_highest_id, load_versions, store_revision

_TRIES = 10

Edit = Callable[[Item | None], Json | None]
"""From the item as it is (None: there is none) to the document that it shall be (None: archived)."""
Aspect = Callable[[Item], Part | tuple[Part, ...]]
"""The part of an item that an ETag is of."""


class EditRefused(UserError):
    """A change that cannot be. `faults`: (JSON pointer in the item, what is wrong and what is allowed)."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        """`faults`: at least one."""
        self.faults = faults
        super().__init__("; ".join(f"{pointer or 'it'}: {problem}" for pointer, problem in faults))


class NoSuchItem(UserError):
    """There is no such item."""


class ItemExists(UserError):
    """There is an item of that id already."""


class ItemInUse(UserError):
    """Others name the item that is to be archived. `users`: the fields that do."""

    def __init__(self, users: list[str]) -> None:
        """`users`: such as `offers[17].advertiser_id`."""
        self.users = users
        super().__init__(f"it is named by {', '.join(users[:20])}{' and more' if len(users) > 20 else ''}")


class ItemMoved(UserError):
    """Somebody else changed the item. `changes`: what they did, as lines; `etag`: of the item as it is now."""

    def __init__(self, etag: str, changes: list[str]) -> None:
        """`changes` is empty when the version that the caller saw is not known."""
        self.etag = etag
        self.changes = changes
        super().__init__("it was changed meanwhile")


class Edited(msgspec.Struct, frozen=True):
    """What a change does. `after`: None: archived. `revision`: in force afterwards; stored only if `is_stored`."""

    kind: str
    item_id: str
    before: Item | None
    after: Item | None
    diff: list[str]
    warnings: list[str]
    revision: int
    is_stored: bool


def find_item(catalog: Catalog, kind: str, key: str) -> Item | None:
    """The stored item of that table and id; None: there is none."""
    body = catalog.bodies(kind).get(key)
    return None if body is None else decode_item(kind, body)


async def change_item(
    conn: Connection,
    catalogs: CatalogCache,
    kind: str,
    key: str,
    edit: Edit,
    *,
    actor: str,
    note: str = "",
    dry_run: bool = False,
    if_match: str | None = None,
    aspect: Aspect = lambda item: item,
) -> Edited:
    """Make an item what `edit` makes of it; with `dry_run` only tell what would change.

    EditRefused, ItemInUse, ItemMoved (`if_match` names another version of the item's `aspect`), and what `edit` raises.
    """
    for tried in range(_TRIES):
        catalog = await catalogs.current(conn)
        before = find_item(catalog, kind, key)
        if before is not None and if_match is not None:
            await _check_match(conn, kind, before, if_match, aspect)
        document = edit(before)
        # Who names an item is known when all have been read: that is long for a large catalog, so not on the loop.
        edited, body = (
            await asyncio.to_thread(_propose, catalog, kind, key, before, None)
            if document is None
            else _propose(catalog, kind, key, before, document)
        )
        if dry_run or not edited.diff:
            return edited
        try:
            revision = await store_revision(
                conn, [(kind, key, body)], base_revision=catalog.revision, actor=actor, note=note
            )
        except CatalogMoved:
            if tried == _TRIES - 1:
                raise
            continue
        return msgspec.structs.replace(edited, revision=revision, is_stored=True)
    raise AssertionError("unreachable")


async def create_item(
    conn: Connection,
    catalogs: CatalogCache,
    kind: str,
    document: Json,
    *,
    actor: str,
    note: str = "",
    dry_run: bool = False,
) -> Edited:
    """A new item, of the id in the document or else of the next one that nobody ever had; ItemExists, EditRefused."""
    name = TABLES[kind].key[0]
    has_id = name in document or kind == "aliases"

    def edit(before: Item | None) -> Json:
        if before is not None:
            raise ItemExists(f"{kind}[{key}] is there already")
        return fresh

    for tried in range(_TRIES):
        fresh = document if has_id else {name: min(await load_highest_id(conn, kind) + 1, MAX_ID), **document}
        key = str(fresh.get(name))
        try:
            return await change_item(conn, catalogs, kind, key, edit, actor=actor, note=note, dry_run=dry_run)
        except ItemExists:
            # Somebody else took the free id first.
            if has_id or tried == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _propose(
    catalog: Catalog, kind: str, key: str, before: Item | None, document: Json | None
) -> tuple[Edited, bytes | None]:
    """What the change does, and the body to store."""
    if document is None:
        _refuse_if_used(catalog, kind, key)
        change = ItemChange(kind, key, before, None, None)
        return Edited(kind, key, before, None, list(describe(change)), [], catalog.revision, is_stored=False), None
    read = _read(catalog, kind, key, document)
    item: Item = getattr(read, kind)[key]
    changes = list(find_changes(read, catalog, prune=False))
    diff = [line for change in changes for line in describe(change)]
    edited = Edited(kind, key, before, item, diff, find_warnings(read), catalog.revision, is_stored=False)
    return edited, changes[0].body if changes else None


def _read(catalog: Catalog, kind: str, key: str, document: Json) -> Document:
    tables = {kind: [document]}
    try:
        read = read_tables(tables, "", catalog)
    except CatalogFaults as error:
        raise EditRefused([(pointer_of(fault.where, tables), fault.problem) for fault in error.faults]) from error
    if key not in getattr(read, kind):
        raise EditRefused([(f"/{TABLES[kind].key[0]}", f"cannot be changed: it is {key}")])
    return read


def _refuse_if_used(catalog: Catalog, kind: str, key: str) -> None:
    """ItemInUse if what stays names what goes."""
    if kind == "aliases":
        return
    rest = catalog.changed(catalog.revision, [(kind, key, None)])
    named: dict[str, set[str]] = {table: set() for table in TABLES}
    faults = find_faults(_decoded(rest, "offers"), _decoded(rest, "aliases"), named, rest)
    postback_faults = find_postback_faults(_decoded(rest, "partners"), named, rest)
    users = [
        fault.where for fault in (*faults, *postback_faults) if fault.problem.startswith(f"there is no {kind}[{key}],")
    ]
    if users:
        raise ItemInUse(users)


def _decoded(catalog: Catalog, kind: str) -> dict[str, Any]:
    return {key: decode_item(kind, body) for key, body in catalog.bodies(kind).items()}


async def _check_match(conn: Connection, kind: str, now: Item, if_match: str, aspect: Aspect) -> None:
    etag = etag_of(aspect(now))
    if matches(etag, if_match):
        return
    for body in await load_versions(conn, kind, item_id(now)):
        seen = decode_item(kind, body)
        if _is_of(seen, if_match, aspect):
            raise ItemMoved(etag, list(describe(ItemChange(kind, item_id(now), seen, now, None))))
    raise ItemMoved(etag, [])


def _is_of(seen: Item, if_match: str, aspect: Aspect) -> bool:
    try:
        return matches(etag_of(aspect(seen)), if_match)
    except NoSuchItem:
        return False  # before that part was there


def offer_of(item: Item | None) -> Offer:
    """The item, which must be an offer; NoSuchItem."""
    if not isinstance(item, Offer):
        raise NoSuchItem("offer")
    return item


def label_of(item: Item) -> str:
    """What people call it."""
    return item.path if isinstance(item, Alias) else item.name
