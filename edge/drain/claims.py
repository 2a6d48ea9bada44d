"""Who comes first: the keys that make a conversion count once, claimed in the batch's transaction."""

from collections.abc import Mapping, Sequence

from edge.drain.settle import Decided
from edge.tracking.signatures import is_replay_claim
from storage.postgres.connection import Connection
from storage.postgres.conversions import claim_keys, find_holders
from storage.postgres.copy import Uuid


async def claim(conn: Connection, decided: Sequence[Decided]) -> list[Decided]:
    """The verdicts that stand: of several claims to a key the first of this batch is tried, the others are duplicates.

    One that asks something of an earlier conversion learns which holds its key.
    """
    holders: dict[str, Uuid] = {}
    for one in decided:
        for key in _keys(one):
            holders.setdefault(key, Uuid(one.received.event.conversion_id))
    won = await claim_keys(conn, holders)
    sought = {key for one in decided if one.verdict.ask for key in one.verdict.ask.seeks}
    held = holders | await find_holders(conn, sorted(sought - won))
    return [_judge(one, held, won) for one in decided]


def _keys(one: Decided) -> tuple[str, ...]:
    repeat_key = one.verdict.repeat_key
    return (*one.verdict.claims, repeat_key) if repeat_key else one.verdict.claims


def _judge(one: Decided, held: Mapping[str, Uuid], won: set[str]) -> Decided:
    mine = Uuid(one.received.event.conversion_id)
    ask, lost = one.verdict.ask, [key for key in _keys(one) if key not in won or held[key] != mine]
    if any(map(is_replay_claim, lost)):
        return one._replace(verdict=one.verdict.as_replay())
    if ask:
        one = one._replace(holder=next((held[key] for key in ask.seeks if key in held and held[key] != mine), None))
    if lost == [one.verdict.repeat_key]:
        return one._replace(is_repeated=True)
    return one._replace(verdict=one.verdict.as_duplicate()) if lost else one
