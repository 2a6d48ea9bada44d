"""Which click a conversion belongs to, and whether it must wait for it."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol
from uuid import UUID

from edge.drain.rows import RowMaker, Touched, moment
from edge.settings import Settings
from edge.tracking.click_id import ms_of, node_of, worker_of
from storage.journal.events import Conversion, Session, decode, decode_session
from storage.postgres.connection import Connection
from storage.postgres.conversions import Recalled, WaitingRow
from storage.postgres.copy import Uuid
from storage.postgres.positions import vouched_through
from storage.postgres.sessions import find_sessions


class SessionsAtHand(Protocol):
    """Sessions by click id."""

    def get(self, click_id: bytes, /) -> Session | None: ...


class Received(NamedTuple):
    """A conversion to decide. `was_decided`: it is stored already, as one whose click is unknown."""

    event: Conversion
    payload: bytes
    journal_id: UUID
    was_decided: bool = False


def received_again(recalled: Recalled) -> Received:
    """A conversion that waited."""
    event = decode(recalled.event)
    if not isinstance(event, Conversion):
        raise TypeError("only conversions wait")
    return Received(event, recalled.event, recalled.journal_id, recalled.was_decided)


class Matcher:
    """Finds the clicks of one drain's conversions."""

    def __init__(self, rows: RowMaker, settings: Settings) -> None:
        self._rows = rows
        self._wait = timedelta(seconds=settings.conversion_wait_s)

    async def find_clicks(
        self, conn: Connection, received: Sequence[Received], at_hand: SessionsAtHand
    ) -> tuple[dict[bytes, Touched], dict[tuple[int, int], int]]:
        """The touched sessions by click id, and how far the minters of those not found are drained.

        In this order: a click committed between the two look-ups must not be taken for lost.
        """
        touched: dict[bytes, Touched] = {}
        missing: set[bytes] = set()
        for one in received:
            click_id = one.event.click_id
            if not click_id or click_id in touched:
                continue
            session = at_hand.get(click_id)
            if session is None and one.event.session:
                session = decode_session(one.event.session)
            if session is None:
                missing.add(click_id)
            else:
                touched[click_id] = self._rows.touched(session)
        if not missing:
            return touched, {}
        vouched = await vouched_through(conn, sorted({(node_of(one), worker_of(one)) for one in missing}))
        for click_id, stored in (await find_sessions(conn, missing)).items():
            known = Session(*stored[:7], ip="", user_agent="")
            touched[click_id] = Touched(known, stored.country, stored.device_type)
        return touched, vouched

    def must_wait(
        self, one: Received, touched: Mapping[bytes, Touched], vouched: Mapping[tuple[int, int], int], now: datetime
    ) -> bool:
        """Whether the click may still be on its way."""
        click_id = one.event.click_id
        if not click_id or click_id in touched or one.was_decided:
            return False
        if vouched.get((node_of(click_id), worker_of(click_id)), -1) >= ms_of(click_id):
            return False
        return now < moment(one.event.received_ms) + self._wait

    def waiting_row(self, one: Received, decided_at: datetime | None) -> WaitingRow:
        """The conversion kept until its click comes."""
        event = one.event
        received_at = moment(event.received_ms)
        return WaitingRow(
            Uuid(event.conversion_id),
            Uuid(event.click_id),
            node_of(event.click_id),
            worker_of(event.click_id),
            ms_of(event.click_id),
            received_at,
            received_at + self._wait,
            one.payload,
            one.journal_id,
            decided_at,
        )
