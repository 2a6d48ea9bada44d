"""From conversions received to what is stored of them: matched, decided, claimed, resolved, in the caller's transaction."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from edge.drain.caps import CapJudge
from edge.drain.catalogs import CatalogHistory
from edge.drain.claims import Keys, claim
from edge.drain.erased import mask_claims
from edge.drain.matching import Matcher, Received, SessionsAtHand
from edge.drain.resolving import Ledger, Resolver, takes_back
from edge.drain.rows import RowMaker
from edge.drain.settle import Decided, Settled, Settler
from edge.settings import Settings
from storage.postgres.connection import Connection
from storage.postgres.stats import Deltas

Sift = Callable[[Connection, Sequence[Decided], Keys], Awaitable[list[Decided]]]
"""Which of the verdicts are to be booked, once their keys are claimed. The others leave nothing behind."""


class Settlement:
    """Settles the conversions of one drain. The order of the steps is the order of the locks that they take."""

    def __init__(self, rows: RowMaker, settings: Settings, history: CatalogHistory) -> None:
        self._history = history
        self._secrets = settings.secrets
        self.may_be_masked = True
        """Whether anybody was ever erased."""
        self.waits_for_others = True
        """Whether a word on an earlier conversion waits until the other journals are stored, for that one may be in them."""
        self._matcher = Matcher(rows, settings, history)
        self._settler = Settler(history, rows, self._matcher)
        zone = ZoneInfo(settings.timezone)
        self._caps = CapJudge(history, zone)
        self._resolver = Resolver(self._settler, history, self._caps, zone)

    async def settle(
        self,
        conn: Connection,
        received: Sequence[Received],
        at_hand: SessionsAtHand,
        touches: Deltas,
        *,
        may_wait: bool = True,
        sift: Sift | None = None,
    ) -> tuple[Settled, list[Decided]]:
        """What to store, and the verdicts. `touches`: what the transaction's clicks and impressions add to the roll-ups."""
        settled, now = Settled(), datetime.now(UTC)
        if not received:
            await self._caps.count(conn, touches, now)
            return settled, []
        matched = await self._matcher.match(conn, received, at_hand, now, may_wait=may_wait)
        settled.waiting += [self._matcher.waiting_row(one.received, None) for one in matched if one.must_wait]
        ready = [one for one in matched if not one.must_wait]
        await self._history.load(conn, self._settler.revisions(ready))
        tried = [self._settler.decide(one.received, one.touched) for one in ready]
        if self.may_be_masked:
            tried = await mask_claims(conn, tried, self._secrets)
        # Asked before what they take back is looked for: what is committed between the two must not be taken for lost.
        words = [one.received for one in tried if takes_back(one)] if may_wait and self.waits_for_others else []
        through_ms = await self._matcher.words_through(conn, words)
        keys = await claim(conn, tried)
        if sift is not None:
            tried = await sift(conn, tried, keys)
        ledger = Ledger()
        await ledger.lock(conn, tried, keys)
        return settled, await self._resolver.resolve(conn, tried, keys, ledger, touches, now, settled, through_ms)
