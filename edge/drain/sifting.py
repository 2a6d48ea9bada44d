"""Which rows of an import are conversions that are known already: by what was read before, by key, by amount and time.

A row is the conversion that it turned out to be when it was read before; else the one that holds its key (an id that the
vendor gave, or the click and goal of an offer that counts one of them); else the nearest of the same click and goal with
the same amount. Within one run each conversion stands for one row: of two equal sales and one postback, one is new.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Literal, NamedTuple
from uuid import UUID

from edge.drain.rows import moment
from edge.drain.settle import Decided
from edge.imports.sale_rows import SaleRow
from edge.tracking.asking import keys_of
from edge.tracking.parameters import to_id
from edge.tracking.payouts import ZERO, round_money
from edge.tracking.signatures import is_replay_claim
from edge.tracking.status_codes import LATER
from storage.postgres.connection import Connection
from storage.postgres.conversions import find_holders
from storage.postgres.imported import Heard, Place, find_by_ids, find_heard, find_rows, find_taken

Fate = Literal["fresh", "known", "skipped", "rejected", "later"]
"""`skipped`: the sender rejected it, and it is not known; `later`: after the row of this batch that it depends on."""
_ONE_EACH = ("reject", "update", "by_event_id")


@dataclass
class Sifted:
    """What becomes of a row. `heard`: what it is, where it is known."""

    row: SaleRow
    fate: Fate
    row_hash: UUID
    reason: str = ""
    heard: Heard | None = None


class _Case(NamedTuple):
    """A row, its verdict, and where to look for it."""

    row: SaleRow
    decided: Decided
    row_hash: UUID
    place: Place | None
    own_keys: tuple[str, ...]
    """Who holds one of these is this conversion, whatever its amount."""
    place_keys: tuple[str, ...]
    """Likewise, if the holder has no id of the vendor's: it came without."""


class _Known(NamedTuple):
    """What the database knows of a batch's rows."""

    rows: Mapping[UUID, list[tuple[UUID, UUID]]]
    holders: Mapping[str, UUID]
    heard: Mapping[Place, list[Heard]]
    conversions: Mapping[UUID, Heard]


class Sifter:
    """Sifts one batch: `sift` is called between the claims and the booking; `sifted` tells each row's fate."""

    def __init__(self, rows: Mapping[bytes, SaleRow], tolerance_s: int) -> None:
        """`rows`: by the id of the conversion that was made of each."""
        self._rows = rows
        self._tolerance = timedelta(seconds=tolerance_s)
        self.sifted: list[Sifted] = []

    async def sift(self, conn: Connection, tried: Sequence[Decided], keys: object) -> list[Decided]:
        """Those that are new and may stand."""
        cases = [self._case(one) for one in tried]
        known = await self._look_up(conn, cases)
        ids = {event for rows in known.rows.values() for event, _ in rows}
        ids |= {one.event_id for heard in known.heard.values() for one in heard} | known.conversions.keys()
        taken = await find_taken(conn, ids)
        fresh: list[Decided] = []
        claimed: set[str] = set()
        for case in cases:
            one = self._decide(case, known, taken, claimed)
            self.sifted.append(one)
            if one.fate == "fresh":
                fresh.append(case.decided)
                claimed.update(case.decided.verdict.claims)
            elif one.heard:
                taken.setdefault(one.heard.event_id, case.row_hash)
        return fresh

    def _case(self, one: Decided) -> _Case:
        row, verdict = self._rows[one.received.event.conversion_id], one.verdict
        session = one.touched.session if one.touched else None
        row_hash = _hash_of(row, one)
        if session is None:
            return _Case(row, one, row_hash, None, (), ())
        named = one.touched.named_id if one.touched and one.touched.named_id else session.click_id
        place = Place(UUID(bytes=named) if named else None, verdict.goal_id, session.offer_id, session.aff_id)
        if not named:
            from_at, to_at = moment(row.when.from_ms), moment(row.when.to_ms)
            place = place._replace(
                from_at=from_at - self._tolerance,
                to_at=to_at + self._tolerance,
                amount=None if row.amount is None else round_money(row.amount),
                contact_id=row.params.get("contact_id", ""),
                unique_id=row.unique_id,
                order_id=row.order_id,
            )
        claims = tuple(key for key in verdict.claims if not is_replay_claim(key))
        mode = verdict.pricing.terms.duplicates if verdict.pricing else ""
        own = claims if mode in _ONE_EACH or row.unique_id else ()
        if not row.unique_id or mode not in _ONE_EACH:
            return _Case(row, one, row_hash, place, own, ())
        places = [f"{click.hex()}:{verdict.goal_id}" for click in {session.click_id, named} if click]
        partner = f"{session.offer_id}:{session.aff_id}:{verdict.goal_id}"
        return _Case(row, one, row_hash, place, own, keys_of(places, partner, mode, "", row.order_id))

    async def _look_up(self, conn: Connection, cases: Sequence[_Case]) -> _Known:
        rows = await find_rows(conn, {case.row_hash for case in cases})
        wanted = {key for case in cases for key in (*case.own_keys, *case.place_keys)}
        found = await find_holders(conn, sorted(wanted))
        # What this batch has just claimed is nobody's yet.
        holders = {key: UUID(bytes=holder.bytes) for key, holder in found.items() if holder.bytes not in self._rows}
        heard = await find_heard(conn, list({case.place for case in cases if case.place}), LATER["rejected"])
        ids = {*holders.values(), *(conversion for found in rows.values() for _, conversion in found)}
        return _Known(rows, holders, heard, await find_by_ids(conn, ids))

    def _decide(self, case: _Case, known: _Known, taken: Mapping[UUID, UUID], claimed: set[str]) -> Sifted:
        """`taken`: what stands for a row of this run; `claimed`: keys of the batch's rows that are new."""
        row, verdict = case.row, case.decided.verdict
        for event, conversion in known.rows.get(case.row_hash, ()):
            if event not in taken and (heard := known.conversions.get(conversion)):
                return Sifted(row, "known", case.row_hash, heard=heard._replace(event_id=event))
        if holder := self._holder(case, known):
            if taken.get(holder.event_id, case.row_hash) != case.row_hash:
                return Sifted(row, "rejected", case.row_hash, "an earlier row of this file is the same conversion")
            return Sifted(row, "known", case.row_hash, heard=holder)
        at_place = known.heard.get(case.place, []) if case.place else []
        contact = "" if case.place and case.place.click_id else row.params.get("contact_id", "")
        free = (one for one in at_place if one.event_id not in taken and not _differ(contact, one.contact_id))
        if found := _nearest(row, free, self._tolerance):
            return Sifted(row, "known", case.row_hash, heard=found)
        if verdict.status == "rejected":
            return Sifted(row, "rejected", case.row_hash, f"{verdict.reason}: {verdict.explanation}")
        if row.status in ("rejected", "reversed"):
            return Sifted(row, "skipped", case.row_hash)
        if not claimed.isdisjoint((*case.own_keys, *case.place_keys)):
            return Sifted(row, "later", case.row_hash)
        return Sifted(row, "fresh", case.row_hash)

    def _holder(self, case: _Case, known: _Known) -> Heard | None:
        for key in case.own_keys:
            if (holder := known.holders.get(key)) and (heard := known.conversions.get(holder)):
                return heard
        for key in case.place_keys:
            if (holder := known.holders.get(key)) and (heard := known.conversions.get(holder)) and not heard.unique_id:
                return heard
        return None


def _nearest(row: SaleRow, heard: Iterable[Heard], tolerance: timedelta) -> Heard | None:
    """The one that the row most likely is; None: none can be."""
    ranked = [
        (rank, _distance(row, one.heard_at), one.heard_at, one.event_id.bytes, one)
        for one in heard
        if (rank := _rank(row, one, tolerance)) is not None
    ]
    return min(ranked, key=lambda found: found[:4])[-1] if ranked else None


def _rank(row: SaleRow, heard: Heard, tolerance: timedelta) -> int | None:
    """How well they fit, 0 best; None: they are two. Ids of one kind that differ tell two conversions apart."""
    mine = {one for one in (row.unique_id, row.order_id) if one}
    if mine & {heard.unique_id, heard.order_id}:
        return 0
    if _differ(row.unique_id, heard.unique_id) or _differ(row.order_id, heard.order_id):
        return None
    if _distance(row, heard.heard_at) > tolerance:
        return None
    if row.amount is None:
        return 2
    if round_money(row.amount) in (heard.amount, heard.first_amount):
        return 1
    return 3 if heard.first_amount == ZERO == heard.amount else None


def _differ(one: str, other: str) -> bool:
    return bool(one and other) and one != other


def _distance(row: SaleRow, when: datetime) -> timedelta:
    from_at, to_at = moment(row.when.from_ms), moment(row.when.to_ms)
    return max(from_at - when, when - to_at, timedelta())


def _hash_of(row: SaleRow, one: Decided) -> UUID:
    """What the row says of the sale itself: status and currency may be others in a later export."""
    event = one.received.event
    amount = "" if row.amount is None else f"{round_money(row.amount) if row.amount < 10**12 else Decimal(0):f}"
    said = (
        event.click_id.hex() or event.transaction_id,
        row.params.get("contact_id", ""),
        str(to_id(row.params.get("aff_id", ""))),
        row.params.get("promo_code", ""),
        str(row.offer_id),
        row.goal_id,
        row.goal_name,
        row.unique_id,
        row.order_id,
        amount,
        str(row.when.from_ms),
        str(row.when.to_ms),
    )
    return UUID(
        bytes=blake2b("\0".join(said).encode("utf-8", "replace"), digest_size=16, person=b"clickedge row").digest()
    )
