"""Goals, landing pages, creatives and rules: parts of an offer, each as if it were an item of its own."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, NamedTuple

import msgspec

from edge.admin.api.catalog import is_wanted, items_after
from edge.admin.api.catalog_answers import EditQuery, Id, Preview, answer_of, current, etag_for, shown_to, translated
from edge.admin.api.catalog_schema import list_of, shape_of
from edge.admin.api.operation import ADMIN, EVERYBODY, READERS, Call, Operation, Reply, Scope
from edge.admin.api.paging import Cursor, Limit, Page, cursor_after, place_of
from edge.admin.api.problems import bad_fields, not_found
from edge.admin.catalog_documents import Json, merge_patch, to_document
from edge.admin.catalog_edit import find_item, offer_of
from edge.admin.catalog_views import show_item
from edge.admin.part_edit import (
    CREATIVES,
    GOALS,
    LANDING_PAGES,
    RULES,
    Make,
    PartEdited,
    PartKind,
    change_part,
    create_part,
    part_etag,
)
from edge.tracking.catalog_document import Offer
from edge.tracking.catalog_fields import MAX_ID


class _Collection(NamedTuple):
    """Who may read these parts, and what one looks like."""

    kind: PartKind
    scopes: tuple[Scope, ...]
    example: Json


_COLLECTIONS = (
    _Collection(GOALS, EVERYBODY, {"name": "lead", "payout": "1.00"}),
    _Collection(LANDING_PAGES, EVERYBODY, {"url": "https://shop.example.com/a", "weight": 70}),
    _Collection(CREATIVES, EVERYBODY, {"name": "Banner"}),
    _Collection(RULES, READERS, {"when": {"country": ["US"]}, "then": {"reject": "geo"}}),
)


class OfferPath(msgspec.Struct, frozen=True):
    """Whose parts."""

    offer_id: Id


class PartPath(msgspec.Struct, frozen=True):
    """Which part."""

    offer_id: Id
    id: Id


class OfOffer(msgspec.Struct, frozen=True):
    """The query of one offer's parts."""

    limit: Limit = 50
    cursor: Cursor = ""


class OfAll(msgspec.Struct, frozen=True):
    """The query of the parts of all offers; `offer_id` and `advertiser_id` may be repeated."""

    limit: Limit = 50
    cursor: Cursor = ""
    q: Annotated[str, msgspec.Meta(description="A part of the offer's name, in any case.", max_length=250)] = ""
    offer_id: list[Id] = []
    advertiser_id: list[Id] = []


def rows_of(kind: PartKind, offer: Json) -> list[Json]:
    """The parts of an offer as it is shown, each with its offer's id and its own."""
    rows: list[Json] = offer.get(kind.field, [])
    return [{"offer_id": offer["id"], "id": place, **row} for place, row in enumerate(rows, 1)]


async def _find_all(kind: PartKind, call: Call) -> Page:
    after = place_of(call.query.cursor, tuple[int, int])
    caller, wanted = call.caller, set(call.query.offer_id)
    data: list[tuple[tuple[int, int], Json]] = []
    for item in items_after(await current(call), "offers", after[0] - 1 if after else None):
        if not isinstance(item, Offer) or (wanted and item.id not in wanted):
            continue
        shown = show_item(item, caller.scope, caller.advertiser_id, caller.aff_id)
        if shown is None or not is_wanted(item, call.query, shown):
            continue
        for place, row in enumerate(rows_of(kind, shown), 1):
            if after and (item.id, place) <= after:
                continue
            if len(data) == call.query.limit:
                return Page([one for _, one in data], cursor_after(data[-1][0]))
            data.append(((item.id, place), row))
    return Page([one for _, one in data], None)


async def _find(kind: PartKind, call: Call) -> Page:
    rows = rows_of(kind, await _offer(call))
    start = place_of(call.query.cursor, int) or 0
    end = start + call.query.limit
    return Page(rows[max(0, start) : end], cursor_after(end) if end < len(rows) else None)


async def _read(kind: PartKind, call: Call) -> Reply:
    row = next((row for row in rows_of(kind, await _offer(call)) if row["id"] == call.path.id), None)
    if row is None:
        raise not_found(kind.noun)
    offer = offer_of(find_item(await current(call), "offers", str(call.path.offer_id)))
    return Reply(row, 200, {"ETag": etag_for(call, part_etag(kind, offer, call.path.id), row)})


async def _offer(call: Call) -> Json:
    return shown_to(call, find_item(await current(call), "offers", str(call.path.offer_id)))


async def _create(kind: PartKind, call: Call) -> Any:
    """A new part: of the offer in the path, or in the flat collection of the one that the body names."""
    offer_id = call.path.offer_id if call.path else _offer_id_of(call.body)
    actor, dry_run = call.caller.actor, call.query.dry_run
    async with call.backend.connection() as conn:
        creating = create_part(
            conn, call.backend.catalogs, kind, offer_id, call.body, actor=actor, note=call.note, dry_run=dry_run
        )
        edited = await translated(creating)
    return _answer(edited, call, offer_id, f"/api/v1/offers/{offer_id}/{kind.field}/{edited.part_id}")


async def _change(kind: PartKind, make_make: Callable[[Call], Make], call: Call) -> Any:
    """Replace, patch or remove one part."""
    async with call.backend.connection() as conn:
        changing = change_part(
            conn,
            call.backend.catalogs,
            kind,
            call.path.offer_id,
            call.path.id,
            make_make(call),
            actor=call.caller.actor,
            note=call.note,
            dry_run=call.query.dry_run,
            if_match=call.request.headers["If-Match"],
        )
        edited = await translated(changing)
    return _answer(edited, call, call.path.offer_id)


def _answer(edited: PartEdited, call: Call, offer_id: int, location: str = "") -> Any:
    part = edited.part
    value = {"offer_id": offer_id, "id": edited.part_id, **to_document(part)} if part is not None else None
    return answer_of(edited.offer, call.query.dry_run, value, edited.etag, location)


def _replacing(call: Call) -> Make:
    return lambda _: dict(call.body)


def _patching(call: Call) -> Make:
    return lambda part: merge_patch(to_document(part), call.body)


def _removing(_: Call) -> Make:
    return lambda _: None


def _offer_id_of(body: Json) -> int:
    offer_id = body.get("offer_id")
    if not isinstance(offer_id, int) or isinstance(offer_id, bool) or not 1 <= offer_id <= MAX_ID:
        raise bad_fields([("/offer_id", f"is needed: the id of an offer, from 1 to {MAX_ID}")])
    return offer_id


def _operations(collection: _Collection) -> Iterator[Operation]:
    """The operations on one collection."""
    kind, scopes, example = collection
    ids: Json = {"offer_id": {"type": "integer", "minimum": 1, "maximum": MAX_ID}}
    ids["id"] = dict(ids["offer_id"])
    name = kind.struct.__name__
    shown = shape_of(kind.struct, name=f"Offer{name}", extra=ids, required=("offer_id", "id"))
    sent = shape_of(kind.struct, "Input", name=f"{name}Body", extra=ids, optional=("id",))
    fresh = shape_of(kind.struct, "Input", name=f"New{name}", extra=ids, required=("offer_id",), optional=("id",))
    patch = shape_of(kind.struct, "Patch", extra=ids)
    flat, nested = f"/{kind.field}", f"/offers/{{offer_id}}/{kind.field}"
    one, slug = f"{nested}/{{id}}", kind.noun.replace(" ", "_")
    writes: dict[str, Any] = {"scopes": ADMIN, "query_type": EditQuery, "preview_type": Preview}
    made: dict[str, Any] = {**writes, "answer_type": shown, "status": 201, "has_etag": True, "statuses": (404,)}
    matched: dict[str, Any] = {**writes, "path_type": PartPath, "needs_match": True}
    title = kind.noun
    yield Operation(
        "GET", flat, f"list_{kind.field}", f"List the {title}s of all offers", partial(_find_all, kind), scopes,
        query_type=OfAll, answer_type=list_of(shown),
    )  # fmt: skip
    yield Operation(
        "POST", flat, f"create_{slug}", f"Add a {title} to the offer that the body names", partial(_create, kind),
        body_type=fresh, example={"offer_id": 17, **example}, **made,
    )  # fmt: skip
    yield Operation(
        "GET", nested, f"list_{kind.field}_of_offer", f"List an offer's {title}s", partial(_find, kind), scopes,
        path_type=OfferPath, query_type=OfOffer, answer_type=list_of(shown),
    )  # fmt: skip
    yield Operation(
        "POST", nested, f"add_{slug}", f"Add a {title} to an offer", partial(_create, kind),
        path_type=OfferPath, body_type=sent, example=example, **made,
    )  # fmt: skip
    yield Operation(
        "GET", one, f"read_{slug}", f"Read a {title}", partial(_read, kind), scopes,
        path_type=PartPath, answer_type=shown, has_etag=True,
    )  # fmt: skip
    yield Operation(
        "PUT", one, f"replace_{slug}", f"Replace a {title}", partial(_change, kind, _replacing),
        body_type=sent, answer_type=shown, has_etag=True, example=example, **matched,
    )  # fmt: skip
    yield Operation(
        "PATCH", one, f"change_{slug}", f"Change some fields of a {title} (RFC 7396)",
        partial(_change, kind, _patching), body_type=patch, answer_type=shown, has_etag=True, example=example,
        **matched,
    )  # fmt: skip
    yield Operation(
        "DELETE", one, f"remove_{slug}", f"Remove a {title}", partial(_change, kind, _removing),
        status=204, statuses=(409,), **matched,
    )  # fmt: skip


OPERATIONS = tuple(operation for one in _COLLECTIONS for operation in _operations(one))
