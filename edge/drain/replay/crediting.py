"""Whom a replayed conversion is credited to: as it was, but where the rules that credit are among those that change."""

from collections.abc import Mapping, Sequence
from typing import Any

from edge.drain.families import Families, session_of
from edge.drain.matching import Matcher, Received
from edge.drain.replay.rules import ReplayHistory, RuleChange
from edge.drain.rows import Touched
from edge.tracking.catalog_document import Offer
from storage.postgres.connection import Connection
from storage.postgres.sessions import find_sessions

Row = Mapping[str, Any]
Pair = tuple[Received, Touched | None]
_TABLES = {"click": "clicks", "impression": "impressions"}


class Crediting:
    """Credits again the conversions of offers whose `attribution`, windows, promo codes or `tracking` change."""

    def __init__(self, rules: RuleChange, history: ReplayHistory, matcher: Matcher) -> None:
        self._families = Families(history)
        self._matcher = matcher
        self._by_family = rules.offers(_differs("attribution", "click_window_s"))
        self._by_code = rules.offers(_differs("promo_codes", "tracking")) | self._by_family

    @property
    def joins_clicks(self) -> bool:
        """Whether conversions may move from one click to another."""
        return bool(self._by_code)

    async def credit(self, conn: Connection, pairs: Sequence[Pair]) -> list[Touched | None]:
        """For each conversion and its touch until now the touch by the changed rules."""
        credited = [touched for _, touched in pairs]
        if not self._by_code:
            return credited
        named = await self._find_named(conn, pairs)
        places = [place for place in named if pairs[place][0].event.offer_id in self._by_family]
        again = await self._families.credit(conn, [(pairs[place][0].event, named[place]) for place in places])
        named |= dict(zip(places, again, strict=True))
        for place, (received, touched) in enumerate(pairs):
            if received.event.offer_id not in self._by_code:
                continue
            if place in named:
                credited[place] = self._matcher.with_promo(received.event, named[place])
            elif touched is None or not touched.session.click_id:
                credited[place] = self._matcher.without_click(received.event)
        return credited

    async def _find_named(self, conn: Connection, pairs: Sequence[Pair]) -> dict[int, Touched]:
        """By place: the touch that was named, as it is stored; those that are stored no more stay as they are."""
        found: dict[int, Touched] = {}
        for kind, table in _TABLES.items():
            ids = {
                place: touched.named_id or touched.session.click_id
                for place, (received, touched) in enumerate(pairs)
                if touched and touched.session.click_id and received.event.offer_id in self._by_code
            }
            ids = {place: id_ for place, id_ in ids.items() if place not in found}
            stored = await find_sessions(conn, set(ids.values()), table)
            for place, id_ in ids.items():
                if one := stored.get(id_):
                    found[place] = Touched(session_of(one), one.country, one.device_type, kind)  # type: ignore[arg-type]
        return found


def _differs(*names: str) -> Any:
    def differ(before: Offer | None, after: Offer | None) -> bool:
        return any(getattr(before, name, None) != getattr(after, name, None) for name in names)

    return differ
