"""One change of one part of an offer: a goal, a landing page, a creative, a rule.

It is a change of its offer, checked with it and stored with it. A rule is known by its place, from 1; since every rule's
place depends on the others, a rule's ETag is that of all rules of its offer.
"""

from collections.abc import Callable, Collection
from itertools import count
from typing import Any, NamedTuple

import msgspec

from edge.admin.catalog_cache import CatalogCache
from edge.admin.catalog_documents import Json, etag_of, to_document
from edge.admin.catalog_edit import Edited, EditRefused, ItemExists, NoSuchItem, change_item, offer_of
from edge.tracking.catalog_document import Creative, Goal, Item, LandingPage, Offer, Part, Rule
from edge.tracking.catalog_fields import MAX_ID
from storage.postgres.catalog import Connection, load_part_ids


class PartKind(NamedTuple):
    """One collection of parts: the offer's field, and what an entry is called and made of."""

    field: str
    noun: str
    struct: type[Part]

    @property
    def has_ids(self) -> bool:
        """Whether an entry has an id of its own, not only a place."""
        return self.struct is not Rule


GOALS = PartKind("goals", "goal", Goal)
LANDING_PAGES = PartKind("landing_pages", "landing page", LandingPage)
CREATIVES = PartKind("creatives", "creative", Creative)
RULES = PartKind("rules", "rule", Rule)

Make = Callable[[Part], Json | None]
"""From the part as it is to the document that it shall be (None: removed)."""


class PartEdited(msgspec.Struct, frozen=True):
    """What the change does to the offer, and the part's id and ETag afterwards; no ETag: it is removed."""

    offer: Edited
    part_id: int
    part: Part | None
    etag: str


class _Spot:
    """Where in its offer the part is, once that is known."""

    def __init__(self) -> None:
        self.index = 0
        self.part_id = 0


def find_index(kind: PartKind, offer: Offer, part_id: int) -> int:
    """The part's place in its list, from 0; NoSuchItem."""
    parts = getattr(offer, kind.field)
    ids = [part.id for part in parts] if kind.has_ids else list(range(1, len(parts) + 1))
    if part_id not in ids:
        raise NoSuchItem(kind.noun)
    return ids.index(part_id)


def part_etag(kind: PartKind, offer: Offer, part_id: int) -> str:
    """The ETag of one part, of a rule that of all rules; NoSuchItem."""
    index = find_index(kind, offer, part_id)
    return etag_of(getattr(offer, kind.field)[index] if kind.has_ids else offer.rules)


async def create_part(
    conn: Connection,
    catalogs: CatalogCache,
    kind: PartKind,
    offer_id: int,
    document: Json,
    *,
    actor: str,
    note: str = "",
    dry_run: bool = False,
) -> PartEdited:
    """A new part, of the id in the document or else of one that none of the offer's ever had; a rule goes last.

    NoSuchItem, ItemExists, EditRefused.
    """
    used = await load_part_ids(conn, offer_id, kind.field) if kind.has_ids and "id" not in document else set()
    spot = _Spot()

    def edit(before: Item | None) -> Json:
        offer = offer_of(before)
        rows = _documents(kind, offer)
        spot.index, spot.part_id = len(rows), _new_id(kind, offer, document, used)
        return {**to_document(offer), kind.field: [*rows, _own(kind, document, offer_id, spot.part_id)]}

    changing = change_item(conn, catalogs, "offers", str(offer_id), edit, actor=actor, note=note, dry_run=dry_run)
    return await _finish(kind, changing, spot)


async def change_part(
    conn: Connection,
    catalogs: CatalogCache,
    kind: PartKind,
    offer_id: int,
    part_id: int,
    make: Make,
    *,
    actor: str,
    note: str = "",
    dry_run: bool = False,
    if_match: str | None = None,
) -> PartEdited:
    """Make a part what `make` makes of it; NoSuchItem, EditRefused, ItemMoved (of this very part)."""
    spot = _Spot()

    def edit(before: Item | None) -> Json:
        offer = offer_of(before)
        rows = _documents(kind, offer)
        spot.index = find_index(kind, offer, part_id)
        fresh = make(getattr(offer, kind.field)[spot.index])
        spot.part_id = part_id if fresh is not None else 0
        rows[spot.index : spot.index + 1] = [] if fresh is None else [_own(kind, fresh, offer_id, part_id)]
        return {**to_document(offer), kind.field: rows}

    def aspect(item: Item) -> Part | tuple[Part, ...]:
        offer = offer_of(item)
        part: Part = getattr(offer, kind.field)[find_index(kind, offer, part_id)]
        return part if kind.has_ids else offer.rules

    changing = change_item(
        conn, catalogs, "offers", str(offer_id), edit,
        actor=actor, note=note, dry_run=dry_run, if_match=if_match, aspect=aspect,
    )  # fmt: skip
    return await _finish(kind, changing, spot)


async def _finish(kind: PartKind, changing: Any, spot: _Spot) -> PartEdited:
    """The change's outcome; faults inside the part are told from there on."""
    try:
        edited: Edited = await changing
    except EditRefused as error:
        inside = f"/{kind.field}/{spot.index}/"
        faults = [
            ("/" + where.removeprefix(inside) if where.startswith(inside) else where, what)
            for where, what in error.faults
        ]
        raise EditRefused(faults) from error
    if not spot.part_id:
        return PartEdited(edited, 0, None, "")
    offer = offer_of(edited.after)
    part = getattr(offer, kind.field)[spot.index]
    return PartEdited(edited, spot.part_id, part, part_etag(kind, offer, spot.part_id))


def _own(kind: PartKind, document: Json, offer_id: int, part_id: int) -> Json:
    """A part as its offer's document has it: without the offer's id, with its own id where it has one."""
    faults = [
        (f"/{name}", f"cannot be changed: it is {value}")
        for name, value in (("offer_id", offer_id), ("id", part_id))
        if document.get(name, value) != value
    ]
    if faults:
        raise EditRefused(faults)
    own = {name: value for name, value in document.items() if name not in ("offer_id", "id")}
    return {"id": part_id, **own} if kind.has_ids else own


def _documents(kind: PartKind, offer: Offer) -> list[Json]:
    return [to_document(part) for part in getattr(offer, kind.field)]


def _new_id(kind: PartKind, offer: Offer, document: Json, used: Collection[int]) -> Any:
    parts = getattr(offer, kind.field)
    if not kind.has_ids:
        return len(parts) + 1
    taken = {part.id for part in parts}
    if "id" not in document:
        return _free_id({*used, *taken})
    if document["id"] in taken:
        raise ItemExists(f"offers[{offer.id}].{kind.field}[{document['id']}] is there already")
    return document["id"]


def _free_id(used: Collection[int]) -> int:
    """A number that no part of the offer ever had: what is booked under an old one stays that one's."""
    highest = max(used, default=0)
    return highest + 1 if highest < MAX_ID else next(one for one in count(1) if one not in used)
