"""The clicks of a window by changed rules: where they would have gone, and what they would have earned.

A click's outcome changes only where the stored rules and the changed ones send it to different ends; so what is not
stored of it (a cookie's seed, `url_id`) is on both sides of the comparison. Conversions stay with their click as it was.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from edge.cap_usage import key_of
from edge.drain.replay.delivering import DIRECT, StoredClick, Way, make_state
from edge.drain.replay.figures import Place, Tally
from edge.drain.replay.rules import ReplayHistory, RuleChange
from edge.drain.replay.state import ReplayCaps
from edge.drain.rows import UNTAKEN, hour_of
from edge.tracking.caps import is_reached, limits_for
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import Offer, Rule
from edge.tracking.payouts import Money
from storage.postgres.cap_usage import Usage
from storage.postgres.connection import Connection
from storage.postgres.replays import Touched, Window, offers_ever, stream_clicks, stream_untouched

Row = Mapping[str, Any]
FOR_EVER_MS = 2**63
CHUNK = 1000


class _Ways(msgspec.Struct):
    """Of a stored offer, where it sends clicks on."""

    redirect_offer_id: int = 0
    rules: tuple[Rule, ...] = ()


_decode = msgspec.json.Decoder(_Ways).decode


class ClickReplay:
    """Goes along with the conversions, for both fill the same caps."""

    def __init__(
        self,
        window: Window,
        rules: RuleChange,
        history: ReplayHistory,
        zone: ZoneInfo,
        tally: Tally,
        caps: ReplayCaps,
        on_progress: Callable[[int], None],
    ) -> None:
        self._window = window
        self._rules = rules
        self._history = history
        self._zone = zone
        self._tally = tally
        self._caps = caps
        self._on_progress = on_progress
        self._capped_anew = rules.offers(_has_other_caps)
        self._state = make_state()
        self._untouched: _Ahead | None = None
        self._clicks: _Ahead | None = None

    @property
    def meets_new_caps(self) -> bool:
        """Whether it matters which of clicks and conversions came first."""
        return bool(self._capped_anew)

    async def until(self, conn: Connection, moment: datetime) -> None:
        """All clicks of before that moment which were not looked at yet; those that no changed rule concerns by the hour."""
        if self._untouched is None or self._clicks is None:
            touched = await _find_touched(conn, self._rules)
            self._untouched = _Ahead(stream_untouched(conn, self._window, touched), "hour")
            self._clicks = _Ahead(stream_clicks(conn, self._window, touched), "clicked_at")
        while rows := await self._untouched.take(moment):
            for row in rows:
                self._count(row)
        while rows := await self._clicks.take(moment):
            await self._history.load(conn, {row["catalog_revision"] for row in rows})
            for row in rows:
                await self._send(conn, StoredClick(row))
            self._on_progress(len(rows))

    def _count(self, row: Row) -> None:
        """Clicks that no changed rule concerns: the same on both sides."""
        if row["is_click"]:
            place = Place(row["offer_id"], row["aff_id"], row["currency"])
            for is_after in (False, True):
                kind = row["outcome"], row["reason"]
                self._tally.count_clicks(place, kind, row["clicks"], Money(row["payout"], row["revenue"]), is_after=is_after)
            self._on_progress(row["clicks"])
        used = Usage(row["taken"], 0, row["payout"], row["revenue"])
        self._caps.use(row["offer_id"], row["aff_id"], row["hour"], used)

    async def _send(self, conn: Connection, click: StoredClick) -> None:
        """One click, by its own revision of either side's catalog."""
        row, revision = click.row, click.row["catalog_revision"]
        stored, changed = self._history.stored_at(revision), self._history.at(revision)
        met = {(click.asked, 0): FOR_EVER_MS} if row["reason"] == "capped" else {}
        before = click.way(self._state, stored, met)
        hour = hour_of(row["clicked_at"])
        kept = {pair: until for pair, until in met.items() if pair[0] not in self._capped_anew}
        after = click.way(self._state, changed, kept | await self._reached(conn, changed, row["aff_id"], hour))
        was = Place(row["offer_id"], row["aff_id"], row["currency"])
        earned = Money(row["payout"], row["revenue"])
        self._tally.count_clicks(was, (row["outcome"], row["reason"]), 1, earned, is_after=False)
        place, kind = was, (row["outcome"], row["reason"])
        if before.key != after.key:
            place, kind = _place_of(click, after, changed), (_outcome(row["outcome"], after), after.reason)
        if before.key != after.key or click.earnings(before) != click.earnings(after):
            earned = click.earnings(after)
        self._tally.count_clicks(place, kind, 1, earned, is_after=True)
        is_taken = click.is_valid and kind[0] not in UNTAKEN
        self._caps.use(place.offer_id, place.aff_id, hour, Usage(int(is_taken), 0, *earned))

    async def _reached(
        self, conn: Connection, catalog: Catalog, aff_id: int, hour: datetime
    ) -> dict[tuple[int, int], int]:
        """Of the offers whose caps change, and this partner in them: those with a cap that is reached."""
        reached = {}
        for offer_id in self._capped_anew:
            offer = catalog.offer(offer_id)
            for limit in limits_for(offer.limits, aff_id) if offer else ():
                used = await self._caps.need(conn, key_of(limit, offer_id, hour, self._zone))
                if is_reached(limit, used.of(limit.measure)):
                    reached[offer_id, limit.aff_id] = FOR_EVER_MS
        return reached


class _Ahead:
    """Rows in order of time, taken up to a moment."""

    def __init__(self, rows: AsyncIterator[Row], column: str) -> None:
        self._rows = rows
        self._column = column
        self._next: Row | None = None
        self._has_begun = False

    async def take(self, before: datetime) -> list[Row]:
        """Some of those before that moment; empty: there are none."""
        if not self._has_begun:
            self._has_begun, self._next = True, await anext(self._rows, None)
        taken: list[Row] = []
        while self._next is not None and self._next[self._column] < before and len(taken) < CHUNK:
            taken.append(self._next)
            self._next = await anext(self._rows, None)
        return taken


async def _find_touched(conn: Connection, rules: RuleChange) -> Touched:
    """The changed offers and all from which a click may come to one of them, ever; the partners that change."""
    leading: dict[int, set[int]] = defaultdict(set)
    changed = [(int(one.item_id), one.body) for one in rules.changes if one.kind == "offers" and one.body]
    for offer_id, body in [*await offers_ever(conn), *changed] if rules.changes else ():
        ways = _decode(body)
        for target in {ways.redirect_offer_id, *(rule.then.offer_id for rule in ways.rules)} - {0}:
            leading[target].add(offer_id)
    found: set[int] = set()
    ahead = rules.ids("offers")
    while ahead:
        found |= ahead
        ahead = {offer_id for target in ahead for offer_id in leading[target]} - found
    return Touched(sorted(found), sorted(rules.ids("partners")))


def _place_of(click: StoredClick, way: Way, catalog: Catalog) -> Place:
    """Where the click is counted: its offer, else the one that was asked for."""
    offer = way.offer or catalog.offer(click.asked)
    return Place(offer.id if offer else click.asked, click.row["aff_id"], offer.currency if offer else "")


def _outcome(stored: str, way: Way) -> str:
    if way.offer is None:
        return stored if stored in UNTAKEN else "rejected" if stored == DIRECT else "fallback"
    return stored if stored not in UNTAKEN else "redirected"


def _has_other_caps(before: Offer | None, after: Offer | None) -> bool:
    def caps_of(offer: Offer | None) -> object:
        return offer and (offer.caps, offer.cap_clicks, [(one.aff_id, one.caps) for one in offer.overrides])

    return caps_of(before) != caps_of(after)
