"""Who comes first: the keys that make a conversion count once, claimed in the batch's transaction."""

from collections.abc import Sequence

from edge.drain.settle import Decided
from edge.tracking.signatures import is_replay_claim
from storage.postgres.connection import Connection
from storage.postgres.conversions import claim_keys
from storage.postgres.copy import Uuid


async def claim(conn: Connection, decided: Sequence[Decided]) -> list[Decided]:
    """The verdicts that stand: of several claims to a key the first of this batch is tried, the others are duplicates."""
    holders: dict[str, Uuid] = {}
    for one in decided:
        for key in one.verdict.claims:
            holders.setdefault(key, Uuid(one.received.event.conversion_id))
    won = await claim_keys(conn, holders)
    return [_judge(one, holders, won) for one in decided]


def _judge(one: Decided, holders: dict[str, Uuid], won: set[str]) -> Decided:
    mine = Uuid(one.received.event.conversion_id)
    lost = [key for key in one.verdict.claims if key not in won or holders[key] != mine]
    if not lost:
        return one
    if any(map(is_replay_claim, lost)):
        return one._replace(verdict=one.verdict.as_replay())
    return one._replace(verdict=one.verdict.as_duplicate())
