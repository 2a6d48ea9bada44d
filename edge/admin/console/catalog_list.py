"""Lists of offers, partners and advertisers: searched by name or id, with the last seven days beside each."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from aiohttp import web

from edge.admin.console.catalog_fields import SINGULAR, Kind
from edge.admin.console.names import Names
from edge.admin.console.page import Visit
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import Advertiser, Offer, Partner
from storage.postgres.overview import count_by_item, ratio

PAGE_ROWS = 100
SINCE = timedelta(days=7)
Item = Advertiser | Partner | Offer
COLUMNS: dict[Kind, Literal["offer_id", "aff_id", "advertiser_id"]] = {
    "offers": "offer_id",
    "partners": "aff_id",
    "advertisers": "advertiser_id",
}


class Entry(NamedTuple):
    """A line of the list. `clicks`, `conversions`: of the last seven days, valid and approved ones."""

    item: Any
    clicks: int
    conversions: int
    cr: Any


async def show_list(visit: Visit, kind: Kind) -> web.Response:
    """The list, or its rows alone while somebody types."""
    query, status, after = visit.asked("q"), visit.asked("status"), visit.asked("after")
    async with visit.connection() as conn:
        catalog = await visit.shared.catalog.current(conn)
        found = [one for one in visible(visit, catalog, kind) if _matches(one, query, status)]
        first = int(after) if after.isascii() and after.isdigit() else 0
        shown = [one for one in found if one.id > first][: PAGE_ROWS + 1]
        since = datetime.now(UTC) - SINCE
        counts = await count_by_item(conn, since, COLUMNS[kind], [one.id for one in shown], visit.whose)
    entries = [_entry(one, *counts.get(one.id, (0, 0))) for one in shown[:PAGE_ROWS]]
    return visit.render(
        "catalog_rows.html" if visit.is_fragment else "catalog_list.html",
        kind=kind,
        singular=SINGULAR[kind],
        entries=entries,
        total=len(found),
        next_after=shown[PAGE_ROWS - 1].id if len(shown) > PAGE_ROWS else None,
        statuses=_statuses(kind),
        query=query,
        wanted=status,
        names=Names(catalog),
        terms=lambda offer: terms_of(catalog, offer, visit.caller.aff_id),
    )


def visible(visit: Visit, catalog: Catalog, kind: Kind) -> Iterator[Item]:
    """The items that whoever looks may see."""
    known, caller = visit.shared.catalog, visit.caller
    items: Sequence[Item]
    if kind == "offers":
        items = [one for one in known.offers(catalog) if caller.advertiser_id in (0, one.advertiser_id)]
    elif kind == "partners":
        items = known.partners(catalog) if visit.is_network else []
    else:
        items = known.advertisers(catalog) if visit.is_network else []
    yield from items


def terms_of(catalog: Catalog, offer: Offer, aff_id: int, goal_id: int = 0) -> Any:
    """What that partner (0: any) earns with the offer or one of its goals, and what is paid for it."""
    view = catalog.offer(offer.id)
    return view.terms(goal_id, aff_id) if view else offer


def _entry(item: Item, clicks: int, conversions: int) -> Entry:
    return Entry(item, clicks, conversions, ratio(conversions, clicks, 100))


def _matches(item: Item, query: str, status: str) -> bool:
    if status and getattr(item, "status", status) != status:
        return False
    return not query or query.casefold() in item.name.casefold() or query == str(item.id)


def _statuses(kind: Kind) -> tuple[str, ...]:
    return {"offers": ("active", "paused", "expired"), "partners": ("active", "blocked")}.get(kind, ())
