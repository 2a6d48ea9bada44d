"""Names of what a report shows by id, from the catalog as it is now."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from storage.postgres.connection import Connection
from storage.postgres.reports.viewer import ADMIN, Viewer

_KINDS = {"advertiser": "advertisers", "partner": "partners", "offer": "offers"}
_PARTS = {"goal": "goals", "landing_page": "landing_pages", "creative": "creatives"}
Labels = dict[str, dict[str, str]]


def label_of(labels: Labels, dimensions: Mapping[str, Any], name: str) -> str:
    """The name of what a row shows in that dimension; "" if it has none."""
    known = labels.get(name, {})
    own_key = f"{dimensions.get('offer')}/{dimensions[name]}"
    return known.get(own_key) or known.get(str(dimensions[name]), "")


async def find_labels(
    conn: Connection, rows: Iterable[Mapping[str, Any]], names: Iterable[str], viewer: Viewer = ADMIN
) -> Labels:
    """The names of the ids in these dimensions of the rows, by dimension and id; one without a name is absent.

    A goal's, page's or creative's id is its offer's own: with `offer` in the rows its key is `offer/id`; else it has a
    name where all offers that have the id give it the same one: to an advertiser, all of its own.
    """
    ids = {name: {row[name] for row in rows} for name in names if name in _KINDS or name in _PARTS}
    labels: Labels = {}
    for name in ids.keys() & _KINDS.keys():
        bodies = await _bodies(conn, _KINDS[name], ids[name])
        labels[name] = {str(one): body["name"] for one, body in bodies.items()}
    parts = sorted(ids.keys() & _PARTS.keys())
    if any(ids[name] - {0} for name in parts):
        offers = await _bodies(conn, "offers", ids.get("offer"))
        if viewer.scope == "advertiser":
            offers = {one: body for one, body in offers.items() if body["advertiser_id"] == viewer.advertiser_id}
        for name in parts:
            labels[name] = _part_labels(offers, _PARTS[name], ids[name], by_offer="offer" in ids)
    return labels


async def _bodies(conn: Connection, kind: str, ids: Iterable[int] | None) -> dict[int, Any]:
    """The catalog's items of that kind, by id; `ids` None: all of them."""
    rows = await conn.fetch(
        "SELECT id::int, body FROM catalog_items WHERE kind = $1 AND revision_to IS NULL"
        " AND ($2::text[] IS NULL OR id = ANY($2))",
        kind,
        None if ids is None else [str(one) for one in ids],
    )
    return {item_id: orjson.loads(body) for item_id, body in rows}


def _part_labels(offers: Mapping[int, Any], part: str, wanted: set[int], *, by_offer: bool) -> dict[str, str]:
    names: dict[str, set[str]] = defaultdict(set)
    for offer_id, offer in offers.items():
        for item in offer.get(part, ()):
            if item["id"] in wanted and item.get("name"):
                names[f"{offer_id}/{item['id']}" if by_offer else str(item["id"])].add(item["name"])
    return {key: min(found) for key, found in names.items() if len(found) == 1}
