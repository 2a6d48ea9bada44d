"""Names of what a report shows by id, from the catalog as it is now."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from storage.postgres.connection import Connection

_KINDS = {"advertiser": "advertisers", "partner": "partners", "offer": "offers"}
_PARTS = {"goal": "goals", "landing_page": "landing_pages", "creative": "creatives"}
Labels = dict[str, dict[int, str]]


async def find_labels(conn: Connection, ids: Mapping[str, Iterable[int]]) -> Labels:
    """The names of these ids, by dimension; an id without a name is absent. A goal's, landing page's or creative's id is
    its offer's own: it is named where all offers that have it give it the same name.
    """
    kinds = [_KINDS[name] for name in ids if name in _KINDS]
    if any(name in _PARTS for name in ids):
        kinds.append("offers")
    rows = await conn.fetch(
        "SELECT kind, id, body FROM catalog_items WHERE revision_to IS NULL AND kind = ANY($1::text[])", kinds
    ) if kinds else []  # fmt: skip
    bodies: dict[str, dict[int, Any]] = defaultdict(dict)
    for kind, item_id, body in rows:
        bodies[kind][int(item_id)] = orjson.loads(body)
    labels: Labels = {}
    for name, wanted in ids.items():
        if name in _KINDS:
            items = bodies[_KINDS[name]]
            labels[name] = {one: items[one]["name"] for one in wanted if one in items}
        elif name in _PARTS:
            names = _part_names(bodies["offers"].values(), _PARTS[name])
            labels[name] = {one: min(names[one]) for one in wanted if len(names.get(one, ())) == 1}
    return labels


def _part_names(offers: Iterable[Any], part: str) -> dict[int, set[str]]:
    names: dict[int, set[str]] = defaultdict(set)
    for offer in offers:
        for item in offer.get(part, ()):
            if item.get("name"):
                names[item["id"]].add(item["name"])
    return names
