"""Advertisers, partners, offers, aliases: listed, read, made, replaced, patched, archived."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, Literal

import msgspec

from edge.admin.api.catalog_answers import EditQuery, Id, Preview, answer_of, current, etag_for, shown_to, translated
from edge.admin.api.catalog_schema import list_of, shape_of
from edge.admin.api.operation import ADMIN, EVERYBODY, READERS, Call, Operation, Reply, Scope
from edge.admin.api.paging import Cursor, Limit, Page, cursor_after, place_of
from edge.admin.api.problems import not_found
from edge.admin.catalog_documents import SET, Json, etag_of, merge_patch, to_document, to_shown, with_secrets_of
from edge.admin.catalog_edit import Edit, NoSuchItem, change_item, create_item, find_item, label_of
from edge.admin.catalog_views import show_item
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_diff import secret_fields
from edge.tracking.catalog_document import TABLES, Alias, AliasKind, Item, decode_item, item_id

_NOUN = {"advertisers": "advertiser", "partners": "partner", "offers": "offer", "aliases": "alias"}
_SCOPES: dict[str, tuple[Scope, ...]] = {
    "advertisers": (*READERS, "advertiser"),
    "partners": (*READERS, "partner"),
    "offers": EVERYBODY,
    "aliases": READERS,
}
_EXAMPLES: dict[str, Json] = {
    "advertisers": {"name": "Outletforce", "security_token": "s3cret"},
    "partners": {"name": "Deal Blog", "postback_url": "https://partner.example/pb?cid={aff_click_id}"},
    "offers": {
        "advertiser_id": 1,
        "name": "Holiday decor",
        "url": "https://shop.example.com/?clickid={transaction_id}",
        "payout": "5.00",
        "revenue": "7.50",
    },
    "aliases": {"path": "SL3", "kind": "click", "params": {"offer_id": "17", "aff_id": "2"}},
}


class ItemPath(msgspec.Struct, frozen=True):
    """Which one."""

    id: Id

    @property
    def key(self) -> str:
        """The id as it is stored."""
        return str(self.id)


class AliasName(msgspec.Struct, frozen=True):
    """Which alias."""

    path: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]

    @property
    def key(self) -> str:
        """The path, which is the id."""
        return self.path


class Find(msgspec.Struct, frozen=True):
    """Which ones; what is empty lets all through."""

    limit: Limit = 50
    cursor: Cursor = ""
    q: Annotated[str, msgspec.Meta(description="A part of the name, in any case.", max_length=250)] = ""
    ref: str = ""


class FindOffers(Find, frozen=True):
    """`status` and `advertiser_id` may be repeated."""

    status: list[Literal["active", "paused", "expired"]] = []
    advertiser_id: list[Id] = []


class FindPartners(Find, frozen=True):
    """`status` may be repeated."""

    status: list[Literal["active", "blocked"]] = []


class FindAliases(msgspec.Struct, frozen=True):
    """`kind`, `offer_id` and `aff_id` may be repeated."""

    limit: Limit = 50
    cursor: Cursor = ""
    q: Annotated[str, msgspec.Meta(description="A part of the path, in any case.", max_length=250)] = ""
    kind: list[AliasKind] = []
    offer_id: list[Id] = []
    aff_id: list[Id] = []


_FIND: dict[str, type[msgspec.Struct]] = {
    "advertisers": Find,
    "partners": FindPartners,
    "offers": FindOffers,
    "aliases": FindAliases,
}


def find_page(catalog: Catalog, kind: str, call: Call) -> Page:
    """One page of the items that the query asks for and the caller may see, by id."""
    query, caller = call.query, call.caller
    data: list[Json] = []
    after = place_of(query.cursor, str if kind == "aliases" else int)
    for item in items_after(catalog, kind, after):
        shown = show_item(item, caller.scope, caller.advertiser_id, caller.aff_id)
        if shown and is_wanted(item, query, shown):
            if len(data) == query.limit:
                return Page(data, cursor_after(data[-1][TABLES[kind].key[0]]))
            data.append(shown)
    return Page(data, None)


def items_after(catalog: Catalog, kind: str, after: int | str | None) -> Iterator[Item]:
    """The items of a table in the order of their ids, from the one after `after`."""
    bodies = catalog.bodies(kind)
    keys: list[Any] = sorted(bodies) if kind == "aliases" else sorted(map(int, bodies))
    for key in keys[0 if after is None else bisect_right(keys, after) :]:
        yield decode_item(kind, bodies[str(key)])


def is_wanted(item: Item, query: Any, shown: Json) -> bool:
    """Whether the item fits the query's filters; those that the query lacks let it through.

    `shown`: what the caller sees of it. By what it does not see nothing is found: it would learn it that way.
    """
    if any(getattr(query, name, ()) and name not in shown for name in ("ref", "status", "advertiser_id")):
        return False
    if query.q and query.q.casefold() not in label_of(item).casefold():
        return False
    if (ref := getattr(query, "ref", "")) and ref != getattr(item, "ref", ""):
        return False
    for name in ("status", "advertiser_id", "kind"):
        if (allowed := getattr(query, name, ())) and getattr(item, name) not in allowed:
            return False
    if not isinstance(item, Alias):
        return True
    wanted = {name: {str(one) for one in getattr(query, name)} for name in ("offer_id", "aff_id")}
    return all(not ids or item.params.get(name) in ids for name, ids in wanted.items())


async def _find(kind: str, call: Call) -> Page:
    return find_page(await current(call), kind, call)


async def _read(kind: str, call: Call) -> Reply:
    item = find_item(await current(call), kind, call.path.key)
    if item is None:
        raise not_found("item")
    shown = shown_to(call, item)
    return Reply(shown, 200, {"ETag": etag_for(call, etag_of(item), shown)})


async def _create(kind: str, call: Call) -> Any:
    document = with_secrets_of(call.body, None, TABLES[kind])
    actor, dry_run = call.caller.actor, call.query.dry_run
    async with call.backend.connection() as conn:
        creating = create_item(
            conn, call.backend.catalogs, kind, document, actor=actor, note=call.note, dry_run=dry_run
        )
        edited = await translated(creating)
    item: Any = edited.after
    return answer_of(edited, dry_run, to_shown(item), etag_of(item), f"/api/v1/{kind}/{item_id(item)}")


async def _change(kind: str, make_edit: Callable[[str, Call], Edit], call: Call) -> Any:
    async with call.backend.connection() as conn:
        changing = change_item(
            conn,
            call.backend.catalogs,
            kind,
            call.path.key,
            make_edit(kind, call),
            actor=call.caller.actor,
            note=call.note,
            dry_run=call.query.dry_run,
            if_match=call.request.headers["If-Match"],
        )
        edited = await translated(changing)
    if edited.after is None:
        return answer_of(edited, call.query.dry_run, None, "")
    return answer_of(edited, call.query.dry_run, to_shown(edited.after), etag_of(edited.after))


def _replacing(kind: str, call: Call) -> Edit:
    struct = TABLES[kind]
    return lambda before: {struct.key[0]: _key_of(before), **with_secrets_of(call.body, before, struct)}


def _patching(kind: str, call: Call) -> Edit:
    return lambda before: patched(before, call.body)


def _archiving(kind: str, call: Call) -> Edit:
    def edit(before: Item | None) -> None:
        _key_of(before)

    return edit


def _operations(kind: str) -> Iterator[Operation]:
    """The operations on one table."""
    noun, struct, key = _NOUN[kind], TABLES[kind], TABLES[kind].key[0]
    path_type = AliasName if kind == "aliases" else ItemPath
    one, scopes, name = f"/{kind}/{{{key}}}", _SCOPES[kind], _article(noun)
    shown, sent, patch = shape_of(struct), shape_of(struct, "Input", optional=("id",)), shape_of(struct, "Patch")
    example = {"name": "New"} if key == "id" else {"kind": "click"}
    writes: dict[str, Any] = {"scopes": ADMIN, "query_type": EditQuery, "preview_type": Preview}
    matched: dict[str, Any] = {**writes, "path_type": path_type, "needs_match": True}
    yield Operation(
        "GET", f"/{kind}", f"list_{kind}", f"List {kind}", partial(_find, kind), scopes,
        query_type=_FIND[kind], answer_type=list_of(shown),
    )  # fmt: skip
    yield Operation(
        "POST", f"/{kind}", f"create_{noun}", f"Make {name}", partial(_create, kind),
        body_type=sent, answer_type=shown, status=201, has_etag=True, example=_EXAMPLES[kind], **writes,
    )  # fmt: skip
    yield Operation(
        "GET", one, f"read_{noun}", f"Read {name}", partial(_read, kind), scopes,
        path_type=path_type, answer_type=shown, has_etag=True,
    )  # fmt: skip
    yield Operation(
        "PUT", one, f"replace_{noun}", f"Replace {name}: what is left out gets its default, secrets stay",
        partial(_change, kind, _replacing),
        body_type=sent, answer_type=shown, has_etag=True, example=_EXAMPLES[kind], **matched,
    )  # fmt: skip
    yield Operation(
        "PATCH", one, f"change_{noun}", f"Change some fields of {name} (RFC 7396)", partial(_change, kind, _patching),
        body_type=patch, answer_type=shown, has_etag=True, example=example, **matched,
    )  # fmt: skip
    yield Operation(
        "DELETE", one, f"archive_{noun}", f"Archive {name}: its history stays", partial(_change, kind, _archiving),
        status=204, statuses=(409,), **matched,
    )  # fmt: skip


def patched(before: Item | None, patch: Json) -> Json:
    """The item's document with a merge patch applied; NoSuchItem."""
    if before is None:
        raise NoSuchItem("item")
    secrets = secret_fields(type(before))
    sent = {name: value for name, value in patch.items() if name.removesuffix(SET) not in secrets or name in secrets}
    document: Json = merge_patch(to_document(before), sent)
    return document


def _key_of(item: Item | None) -> int | str:
    if item is None:
        raise NoSuchItem("item")
    return item.path if isinstance(item, Alias) else item.id


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'ao' else 'a'} {noun}"


OPERATIONS = tuple(operation for kind in TABLES for operation in _operations(kind))
