"""Costs and sends over the API: what the figures of a day are set against."""

from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import Annotated, Any

import msgspec

from edge.admin.api.operation import READERS, Call, Operation
from edge.admin.api.paging import Cursor, Limit, Page, cursor_after, place_of
from edge.admin.api.problems import bad_fields, not_found
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_fields import MAX_ID, MAX_TEXT_CHARS
from edge.tracking.parameters import clean
from storage.postgres.cost_book import CostFilter, CostKey, CostRow, delete_cost, find_costs, put_costs

MAX_ROWS = 1000
MAX_SENDS = 10**12

_Id = Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)]
_Currency = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]
_AnyCurrency = Annotated[str, msgspec.Meta(pattern="^([A-Z]{3})?$")]
_Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT_CHARS)]
_Sends = Annotated[int, msgspec.Meta(ge=0, le=MAX_SENDS)]


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A day's cost of an offer, partner, creative, list (0 and "": of none). `feed`: who says so."""

    day: date
    offer_id: _Id = 0
    aff_id: _Id = 0
    creative_id: _Id = 0
    list: _Text = ""
    currency: _Currency
    amount: Annotated[Decimal, msgspec.Meta(description="At most 6 decimals, below 10^12.")] = Decimal(0)
    sends: _Sends = 0
    feed: _Text = "api"


class Costs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows to store, each in place of the one of the same key: all fields but `amount` and `sends`."""

    data: Annotated[list[Cost], msgspec.Meta(min_length=1, max_length=MAX_ROWS)]


class Stored(msgspec.Struct, frozen=True):
    """How many rows were stored."""

    stored: int


class CostPage(msgspec.Struct, frozen=True):
    """One page of costs."""

    data: list[Cost]
    next_cursor: str | None


class FindCosts(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows: days from one to another, both included; the others may be repeated."""

    limit: Limit = 50
    cursor: Cursor = ""
    from_day: Annotated[date | None, msgspec.Meta(description="The first day.")] = msgspec.field(
        default=None, name="from"
    )
    to_day: Annotated[date | None, msgspec.Meta(description="The last day.")] = msgspec.field(default=None, name="to")
    offer: list[_Id] = []
    partner: list[_Id] = []
    list_: list[str] = msgspec.field(default_factory=list, name="list")
    feed: list[str] = []


class WhichCost(msgspec.Struct, frozen=True, kw_only=True):
    """The key of the row that is to go. An imported row of sends alone has no currency."""

    day: date
    currency: _AnyCurrency = ""
    offer_id: _Id = 0
    aff_id: _Id = 0
    creative_id: _Id = 0
    list: _Text = ""
    feed: _Text = "api"


async def find(call: Call) -> Page:
    """One page of costs, by day."""
    query = call.query
    place = place_of(query.cursor, CostKey)
    wanted = CostFilter(query.from_day, query.to_day, query.offer, query.partner, query.list_, query.feed)
    async with call.backend.connection() as conn:
        rows = await find_costs(conn, wanted, place, query.limit + 1)
    data = rows[: query.limit]
    shown = [{**row.key._asdict(), "amount": row.amount, "sends": row.sends} for row in data]
    return Page(shown, cursor_after(data[-1].key) if len(rows) > len(data) else None)


async def put(call: Call) -> Stored:
    """Store rows, all or none."""
    costs: Sequence[Cost] = call.body.data
    async with call.backend.connection() as conn:
        catalog = await call.backend.catalogs.current(conn)
        if faults := list(_find_faults(costs, catalog)):
            raise bad_fields(faults)
        await put_costs(conn, [CostRow(_key(cost), cost.amount, cost.sends) for cost in costs])
    return Stored(len(costs))


async def delete(call: Call) -> None:
    """Take one row out."""
    async with call.backend.connection() as conn:
        if not await delete_cost(conn, _key(call.query)):
            raise not_found("row")


def _key(of: Any) -> CostKey:
    return CostKey(*(getattr(of, name) for name in CostKey._fields))


def _find_faults(costs: Sequence[Cost], catalog: Catalog) -> Iterator[tuple[str, str]]:
    seen: dict[CostKey, int] = {}
    for place, cost in enumerate(costs):
        here = f"/data/{place}"
        # What is no number cannot even be compared.
        if not cost.amount.is_finite() or not 0 <= cost.amount < 10**12 or cost.amount != round(cost.amount, 6):
            yield f"{here}/amount", "allowed: an amount from 0, below 10^12, at most 6 decimals"
        for name, kind in (("offer_id", "offers"), ("aff_id", "partners")):
            item_id = getattr(cost, name)
            if item_id and str(item_id) not in catalog.bodies(kind):
                yield f"{here}/{name}", f"there is no {kind}[{item_id}]"
        for name in ("list", "feed"):
            if clean(getattr(cost, name)) != getattr(cost, name):
                yield f"{here}/{name}", "has a control character in it"
        if seen.setdefault(_key(cost), place) != place:
            yield here, f"has the key of /data/{seen[_key(cost)]}: a row may be there once"


_EXAMPLE = {
    "data": [
        {"day": "2026-11-01", "offer_id": 17, "list": "newsletter", "currency": "USD", "amount": 120, "sends": 50000}
    ]
}
OPERATIONS = (
    Operation("GET", "/costs", "list_costs", "List costs and sends", find, READERS, query_type=FindCosts, answer_type=CostPage),
    Operation(
        "PUT", "/costs", "put_costs", "Store costs and sends: each row replaces the one of its key", put,
        body_type=Costs, answer_type=Stored, example=_EXAMPLE,
    ),
    Operation("DELETE", "/costs", "delete_cost", "Take one row out", delete, query_type=WhichCost, status=204, statuses=(404,)),
)  # fmt: skip
