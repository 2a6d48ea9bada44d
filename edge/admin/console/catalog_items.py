"""One offer, partner or advertiser: shown, edited, its change reviewed as a diff and then stored as a revision."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from aiohttp import web

from edge.admin.api.operation import ADMIN, EVERYBODY, READERS
from edge.admin.catalog_documents import etag_of, to_shown
from edge.admin.catalog_edit import (
    Edited,
    EditRefused,
    ItemExists,
    ItemInUse,
    ItemMoved,
    change_item,
    create_item,
    find_item,
)
from edge.admin.console.catalog_fields import (
    SECTIONS,
    SINGULAR,
    Json,
    Kind,
    Unreadable,
    all_fields,
    blank,
    choices,
    from_form,
    read_text,
    to_text,
    with_stored_secrets,
)
from edge.admin.console.catalog_list import show_list, terms_of, visible
from edge.admin.console.names import Names
from edge.admin.console.page import Page, Refusal, Route, Visit, not_found
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import Offer

NEW = "new"
NOTE = "console"


class Form(dict[str, Any]):
    """What the edit form shows: values by field, or a text; and what is wrong with them."""


async def show(visit: Visit, kind: Kind) -> web.Response:
    """The item as whoever looks may see it."""
    async with visit.connection() as conn:
        catalog = await visit.shared.catalog.current(conn)
    key = visit.request.match_info["id"]
    item = next((one for one in visible(visit, catalog, kind) if str(one.id) == key), None)
    if item is None:
        raise not_found(SINGULAR[kind])
    return visit.render(
        "catalog_item.html",
        kind=kind,
        singular=SINGULAR[kind],
        item=item,
        text=to_text(to_shown(item)) if visit.is_network else "",
        names=Names(catalog),
        terms=terms_of(catalog, item, visit.caller.aff_id) if isinstance(item, Offer) else None,
        goal_terms={goal.id: terms_of(catalog, item, visit.caller.aff_id, goal.id) for goal in item.goals}
        if isinstance(item, Offer)
        else {},
        offers=_offers_of(visit, catalog, kind, int(key)),
        stored=visit.asked("stored") if visit.asked("stored").isdecimal() else "",
    )


async def edit(visit: Visit, kind: Kind) -> web.Response:
    """The form, or the text."""
    key = visit.request.match_info.get("id", NEW)
    async with visit.connection() as conn:
        catalog = await visit.shared.catalog.current(conn)
    item = find_item(catalog, kind, key)
    if item is None and key != NEW:
        raise not_found(SINGULAR[kind])
    if visit.request.method == "POST":  # back from the review
        return _form(visit, catalog, kind, key, _read(visit))
    shown = to_shown(item) if item else blank(kind)
    return _form(visit, catalog, kind, key, shown, etag=etag_of(item) if item else "")


async def review(visit: Visit, kind: Kind) -> web.Response:
    """What a change would do; the form again if it cannot be."""
    key = visit.request.match_info.get("id", NEW)
    async with visit.connection() as conn:
        catalog = await visit.shared.catalog.current(conn)
        item = find_item(catalog, kind, key)
        if item is None and key != NEW:
            raise not_found(SINGULAR[kind])
        try:
            document = _sent(visit, kind, to_shown(item) if item else blank(kind))
        except Unreadable as error:
            return _form(visit, catalog, kind, key, {}, faults={"": [str(error)]}, status=422)
        try:
            edited = await _change(visit, conn, kind, key, document, dry_run=True)
        except EditRefused as error:
            return _form(visit, catalog, kind, key, document, faults=_by_field(error.faults), status=422)
        except ItemExists as error:
            return _form(visit, catalog, kind, key, document, faults={"id": [str(error)]}, status=409)
        except ItemMoved as moved:
            return _review(visit, kind, key, document, None, moved, etag=moved.etag)
    return _review(visit, kind, key, document, edited, None, etag=_text_of(visit, "etag"))


async def store(visit: Visit, kind: Kind) -> web.StreamResponse:
    """Store what was reviewed."""
    key = visit.request.match_info.get("id", NEW)
    document = _read(visit)
    async with visit.connection() as conn:
        try:
            edited = await _change(visit, conn, kind, key, document, dry_run=False)
        except ItemMoved as moved:
            return _review(visit, kind, key, document, None, moved, etag=moved.etag)
        except (EditRefused, ItemExists) as error:
            raise Refusal(409, "The change does not fit any more", str(error)) from error
    return web.Response(status=303, headers={"Location": f"/{kind}/{edited.item_id}?stored={edited.revision}"})


async def archive(visit: Visit, kind: Kind) -> web.StreamResponse:
    """Ask whether to archive it (GET), or do it."""
    key, is_asking = visit.request.match_info["id"], visit.request.method == "GET"
    async with visit.connection() as conn:
        item = find_item(await visit.shared.catalog.current(conn), kind, key)
        if item is None:
            raise not_found(SINGULAR[kind])
        try:
            await change_item(
                conn,
                visit.shared.catalog.cache,
                kind,
                key,
                lambda before: None,
                actor=visit.caller.name,
                note=NOTE,
                dry_run=is_asking,
            )
        except ItemInUse as error:
            raise Refusal(409, f"This {SINGULAR[kind]} cannot be archived", str(error)) from error
    if is_asking:
        return visit.render("catalog_archive.html", kind=kind, singular=SINGULAR[kind], item=item)
    return web.Response(status=303, headers={"Location": f"/{kind}"})


async def _change(visit: Visit, conn: Any, kind: Kind, key: str, document: Json, *, dry_run: bool) -> Edited:
    cache, actor = visit.shared.catalog.cache, visit.caller.name
    if key == NEW:
        return await create_item(conn, cache, kind, document, actor=actor, note=NOTE, dry_run=dry_run)
    return await change_item(
        conn,
        cache,
        kind,
        key,
        lambda before: with_stored_secrets(document, before, kind),
        actor=actor,
        note=NOTE,
        dry_run=dry_run,
        if_match=_text_of(visit, "etag"),
    )


def _sent(visit: Visit, kind: Kind, shown: Json) -> Json:
    """The document that was sent, as text or as a form."""
    return read_text(_text_of(visit, "text")) if "text" in visit.form else from_form(kind, shown, visit.form)


def _read(visit: Visit) -> Json:
    """The text that a review sent back, which was read before."""
    try:
        return read_text(_text_of(visit, "text"))
    except Unreadable as error:
        raise Refusal(422, "This text cannot be read", str(error)) from error


def _text_of(visit: Visit, name: str) -> str:
    value = visit.form.get(name, "")
    return value if isinstance(value, str) else ""


def _by_field(faults: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Faults by field; what is deeper than a field says where."""
    found: dict[str, list[str]] = {}
    for pointer, problem in faults:
        field, _, rest = pointer.strip("/").partition("/")
        found.setdefault(field, []).append(f"{rest}: {problem}" if rest else problem)
    return found


def _form(
    visit: Visit,
    catalog: Catalog,
    kind: Kind,
    key: str,
    document: Json,
    *,
    etag: str | None = None,
    faults: Mapping[str, list[str]] | None = None,
    status: int = 200,
) -> web.Response:
    is_text = _is_text(visit, kind, document)
    return visit.render(
        "catalog_edit.html",
        status=status,
        kind=kind,
        singular=SINGULAR[kind],
        key=key,
        sections=SECTIONS[kind],
        values=document,
        text=(_text_of(visit, "text") or to_text(document)) if is_text else "",
        is_text=is_text,
        etag=_text_of(visit, "etag") if etag is None else etag,
        faults=faults or {},
        fields={field.name for section in SECTIONS[kind] for field in section.fields},
        choices=lambda name: choices(kind, name),
        advertisers=visit.shared.catalog.advertisers(catalog),
        plain=lambda value: f"{value:f}" if isinstance(value, Decimal) else value,
    )


def _is_text(visit: Visit, kind: Kind, document: Json) -> bool:
    """Whether the text is shown instead of fields; a secret that was just written is shown in the text only."""
    if visit.request.method == "GET":
        return visit.asked("as") == "text"
    if _text_of(visit, "mode") == "form":
        return any(field.look == "secret" and field.name in document for field in all_fields(kind))
    return "text" in visit.form


def _review(
    visit: Visit, kind: Kind, key: str, document: Json, edited: Edited | None, moved: ItemMoved | None, *, etag: str
) -> web.Response:
    """The diff with a button to store it; `moved`: somebody else was faster, and the etag is of what they made."""
    return visit.render(
        "catalog_review.html",
        status=409 if moved else 200,
        kind=kind,
        singular=SINGULAR[kind],
        key=key,
        edited=edited,
        moved=moved,
        text=to_text(document),
        mode=_text_of(visit, "mode") or ("text" if "text" in visit.form else "form"),
        etag=etag,
    )


def _offers_of(visit: Visit, catalog: Catalog, kind: Kind, item_id: int) -> list[Any]:
    """An advertiser's offers."""
    if kind != "advertisers":
        return []
    return [offer for offer in visit.shared.catalog.offers(catalog) if offer.advertiser_id == item_id]


def make_page(kind: Kind, title: str, letter: str) -> Page:
    """The page of that table."""

    def of(handler: Any) -> Any:
        async def answer(visit: Visit) -> web.StreamResponse:
            response: web.StreamResponse = await handler(visit, kind)
            return response

        return answer

    item = f"/{kind}/{{id:[0-9]{{1,10}}}}"
    return Page(
        path=f"/{kind}",
        title=title,
        group="Catalog",
        icon=kind,
        letter=letter,
        scopes=EVERYBODY if kind == "offers" else READERS,
        routes=(
            Route("GET", f"/{kind}", of(show_list)),
            Route("GET", f"/{kind}/{NEW}", of(edit), ADMIN),
            Route("POST", f"/{kind}/{NEW}/review", of(review), ADMIN),
            Route("POST", f"/{kind}/{NEW}/edit", of(edit), ADMIN),
            Route("POST", f"/{kind}/{NEW}", of(store), ADMIN),
            Route("GET", item, of(show)),
            Route("GET", f"{item}/edit", of(edit), ADMIN),
            Route("POST", f"{item}/edit", of(edit), ADMIN),
            Route("POST", f"{item}/review", of(review), ADMIN),
            Route("POST", item, of(store), ADMIN),
            Route("GET", f"{item}/archive", of(archive), ADMIN),
            Route("POST", f"{item}/archive", of(archive), ADMIN),
        ),
    )


PAGES = (
    make_page("offers", "Offers", "f"),
    make_page("partners", "Partners", "p"),
    make_page("advertisers", "Advertisers", "a"),
)
