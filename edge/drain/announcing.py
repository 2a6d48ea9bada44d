"""Verdicts into postbacks to be sent: the rows that a batch's transaction queues beside its conversions."""

from collections.abc import Iterator, Sequence

from edge.announcing import DECIDED, Announcement, outbox_rows
from edge.drain.catalogs import CatalogHistory
from edge.drain.settle import Decided
from storage.postgres.copy import Uuid
from storage.postgres.outbox import OutboxRow


def outbox_of(history: CatalogHistory, decided: Sequence[Decided]) -> Iterator[OutboxRow]:
    """What partners are told of these verdicts, by the catalog that each was decided with."""
    for one in decided:
        if one.touched is None:
            continue
        event, verdict, session = one.received.event, one.verdict, one.touched.session
        told = Announcement(
            Uuid(event.conversion_id),
            DECIDED,
            verdict.status,
            session.aff_id,
            session.offer_id,
            verdict.goal_id,
            verdict.amount,
            verdict.payout,
            verdict.revenue,
            verdict.currency,
        )
        yield from outbox_rows(history.at(max(event.revision, session.revision)), told)
