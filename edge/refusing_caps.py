"""Which caps a click met, for `explain`: its row says `capped`, and workers know no more than that."""

from collections.abc import Mapping
from typing import Any

import msgspec

from edge.tracking.caps import is_reached, limits_for, limits_of
from edge.tracking.catalog_document import Caps, Override, Rule
from edge.tracking.delivery import MAX_REDIRECT_OFFERS, rules_of
from storage.postgres.cap_usage import usage_at
from storage.postgres.catalog import load_offers_at
from storage.postgres.connection import Connection


class _Way(msgspec.Struct, frozen=True):
    """Of a stored offer, what it refuses clicks by and where it sends them."""

    caps: Caps = Caps()
    overrides: tuple[Override, ...] = ()
    redirect_offer_id: int = 0
    rules: tuple[Rule, ...] = ()


_decode = msgspec.json.Decoder(_Way).decode


async def find_refusing_caps(conn: Connection, click: Mapping[str, Any]) -> list[str]:
    """The caps on the click's way that are reached in the periods which hold it, by what is used in them now."""
    names = []
    for offer_id, way in (await _ways(conn, click)).items():
        used = await usage_at(conn, offer_id, click["clicked_at"])
        for limit in limits_for(limits_of(way), click["aff_id"]):
            usage = used.get((limit.aff_id, limit.period))
            if usage is not None and is_reached(limit, usage.of(limit.measure)):
                whose = f"partner {limit.aff_id} in offer {offer_id}" if limit.aff_id else f"offer {offer_id}"
                names.append(f"{limit.period}_{limit.measure} = {limit.cap} of {whose}, {usage.of(limit.measure)} by now")
    return names


async def _ways(conn: Connection, click: Mapping[str, Any]) -> dict[int, _Way]:
    """The offer that was asked for, those that rules sent it to, and their stand-ins, at the click's revision."""
    asked = int(click["extras"].get("requested_offer_id", click["offer_id"]))
    rules = rules_of(click["extras"].get("rule", ""), asked)
    wanted = {asked, *(offer_id for offer_id, _ in rules)}
    ways: dict[int, _Way] = {}
    for _ in range(MAX_REDIRECT_OFFERS + 1):
        bodies = await load_offers_at(conn, click["catalog_revision"], sorted(wanted - ways.keys()))
        found = {offer_id: _decode(body) for offer_id, body in bodies.items()}
        ways |= found
        wanted = {way.redirect_offer_id for way in found.values()}
        wanted |= {ways[owner].rules[position - 1].then.offer_id for owner, position in rules if owner in found}
    return ways
