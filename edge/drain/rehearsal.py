"""What a conversion would come to, nothing recorded: the worker's own answer, the drain's own way in a transaction that is
taken back.
"""

import time
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from edge.counters import Counters
from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import store_settled
from edge.drain.matching import Received
from edge.drain.rows import RowMaker
from edge.drain.settle import Settled
from edge.drain.settlement import Settlement
from edge.enrich import Enricher
from edge.settings import Settings
from edge.tracking.catalog import Catalog
from edge.tracking.click_id import ClickIds
from edge.tracking.dialects import dispatch
from edge.tracking.headers import Headers
from edge.tracking.request import Handled, Request
from edge.tracking.sessions import Sessions
from edge.tracking.state import EdgeState
from storage.journal.events import Conversion, decode, encode
from storage.postgres.catalog import load_current
from storage.postgres.connection import Connection
from storage.postgres.external_ids import has_external_ids
from storage.postgres.outbox import OutboxRow
from storage.postgres.postback_facts import PostbackFacts, find_facts
from storage.postgres.stats import Deltas
from storage.postgres.stories import find_conversion

Row = dict[str, Any]
ADMIN_WORKER = 63


class _NoLease:
    """Ids that are never stored may be minted again."""

    start_ms = 0
    through_ms = 1 << 48

    def cover(self, ms: int) -> None:
        """Nothing to do."""


class Rehearsed(NamedTuple):
    """What would happen. `handled`: the answer, and what is read; the rest is empty where it is no conversion."""

    handled: Handled
    event: Conversion | None = None
    conversion: Row | None = None
    """The row that there would be: its own, or the earlier conversion's that it would change."""
    changes: list[Row] = []  # noqa: RUF012 - never changed
    waits_until: datetime | None = None
    """Its click is not stored; until then it would wait for it."""
    postbacks: list[OutboxRow] = []  # noqa: RUF012 - never changed
    facts: PostbackFacts | None = None
    """What the macros of these postbacks stand for."""
    catalog: Catalog = Catalog.empty()

    @property
    def is_change(self) -> bool:
        """Whether it would change an earlier conversion instead of being one."""
        mine = UUID(bytes=self.event.conversion_id) if self.event else None
        return self.conversion is not None and self.conversion["conversion_id"] != mine


async def rehearse(
    conn: Connection, settings: Settings, method: str, path: str, params: dict[str, str], headers: Headers, ip: str
) -> Rehearsed:
    """What this request would come to now. `ip`: whose it is taken for."""
    revision, items = await load_current(conn)
    catalog = Catalog.empty().changed(revision, items)
    now_ms = time.time_ns() // 1_000_000
    state = EdgeState(
        catalog,
        ClickIds(settings.secrets, settings.node_id, ADMIN_WORKER, _NoLease()),
        Sessions(1),
        Counters.private(),
        has_external_ids=await has_external_ids(conn),
    )
    handled = dispatch(state, Request(method, path, params, headers, ip, True, now_ms))
    event = decode(handled.event) if handled.event else None
    if not isinstance(event, Conversion):
        return Rehearsed(handled, catalog=catalog)
    return await _settle(conn, settings, event, Rehearsed(handled, event, catalog=catalog))


async def _settle(conn: Connection, settings: Settings, event: Conversion, asked: Rehearsed) -> Rehearsed:
    history = CatalogHistory()
    settlement = Settlement(RowMaker(Enricher.of(settings), settings), settings, history)
    settlement.waits_for_others = False
    transaction = conn.transaction()
    await transaction.start()
    try:
        received = Received(event, encode(event), uuid4())
        settled, _ = await settlement.settle(conn, [received], {}, Deltas())
        await store_settled(conn, settled, Deltas())
        return await _look(conn, event, settled, asked)
    finally:
        await transaction.rollback()


async def _look(conn: Connection, event: Conversion, settled: Settled, asked: Rehearsed) -> Rehearsed:
    """What stands in the tables before it is taken back."""
    own_id = UUID(bytes=event.conversion_id)
    conversion_id = next(iter(settled.changed), own_id)
    conversion, changes = await find_conversion(conn, conversion_id)
    if conversion_id != own_id:
        changes = [one for one in changes if one["cause_id"] == own_id]
    facts = await find_facts(conn, [conversion_id])
    return asked._replace(
        conversion=conversion,
        changes=changes,
        waits_until=None if conversion else next((one.deadline for one in settled.waiting), None),
        postbacks=settled.postbacks,
        facts=facts.get(conversion_id),
    )
