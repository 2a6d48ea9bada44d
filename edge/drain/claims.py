"""Who comes first: the keys that make a conversion count once, claimed in the batch's transaction.

All keys of a batch are claimed at once, in their order; who of the batch has them is decided as its conversions take their
turns. One that comes to nothing leaves its keys to the next, and what nobody has in the end is given back.
"""

from collections.abc import Iterable, Mapping, Sequence

from edge.drain.settle import Decided
from edge.tracking.signatures import is_replay_claim
from storage.postgres.connection import Connection
from storage.postgres.conversions import claim_keys, find_holders, give_keys, release_keys
from storage.postgres.copy import Uuid

_ACCEPTED = ("approved", "pending")


class Keys:
    """The keys that one transaction's conversions want, and who has them by now."""

    def __init__(self, claimed: Mapping[str, Uuid], stored: Mapping[str, Uuid]) -> None:
        """`claimed`: free before, in the database for the first that wants them; `stored`: who held others before."""
        self._claimed = claimed
        self._stored = stored
        self._taken: dict[str, Uuid] = {}

    @property
    def taken(self) -> Mapping[str, Uuid]:
        """Who has which key by now, of those that were free."""
        return self._taken

    def stored_holders(self, one: Decided) -> list[Uuid]:
        """The stored conversions that it may mean."""
        ask = one.verdict.ask
        return [self._stored[key] for key in ask.seeks if key in self._stored] if ask else []

    def judge(self, one: Decided) -> Decided:
        """The verdict that stands in its turn; one that asks something of an earlier conversion learns which it is."""
        ask, mine = one.verdict.ask, _id(one)
        lost = [key for key in _keys(one) if key in self._taken or key not in self._claimed]
        if any(map(is_replay_claim, lost)):
            return one._replace(verdict=one.verdict.as_replay())
        if ask:
            holders = (self._taken.get(key) or self._stored.get(key) for key in ask.seeks)
            one = one._replace(holder=next((holder for holder in holders if holder and holder != mine), None))
        if lost == [one.verdict.repeat_key]:
            return one._replace(is_repeated=True)
        return one._replace(verdict=one.verdict.as_duplicate()) if lost else one

    def take(self, tried: Decided, status: str) -> None:
        """It was accepted and has its keys now; else none. `status`: what became of it in the end."""
        if status in _ACCEPTED:
            self._take(tried, _keys(tried))

    def take_signature(self, tried: Decided) -> None:
        """It changed an earlier conversion, or repeats one: its signature was accepted all the same."""
        self._take(tried, filter(is_replay_claim, tried.verdict.claims))

    async def write(self, conn: Connection) -> None:
        """Give the keys to those who have them now, and free the others."""
        await release_keys(conn, {key: first for key, first in self._claimed.items() if key not in self._taken})
        await give_keys(conn, {key: one for key, one in self._taken.items() if self._claimed[key] != one})

    def _take(self, tried: Decided, keys: Iterable[str]) -> None:
        for key in keys:
            if key in self._claimed:
                self._taken.setdefault(key, _id(tried))


async def claim(conn: Connection, tried: Sequence[Decided]) -> Keys:
    """Claim what these verdicts want."""
    wanted: dict[str, Uuid] = {}
    for one in tried:
        for key in _keys(one):
            wanted.setdefault(key, _id(one))
    won = await claim_keys(conn, wanted)
    sought = {key for one in tried if one.verdict.ask for key in one.verdict.ask.seeks}
    stored = await find_holders(conn, sorted(sought - won))
    return Keys({key: wanted[key] for key in won}, stored)


def _id(one: Decided) -> Uuid:
    return Uuid(one.received.event.conversion_id)


def _keys(one: Decided) -> tuple[str, ...]:
    repeat_key = one.verdict.repeat_key
    return (*one.verdict.claims, repeat_key) if repeat_key else one.verdict.claims
