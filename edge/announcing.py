"""A conversion and its partner: what is to be told, queued in the transaction that stores or changes the conversion.

Whoever changes a stored conversion queues its `outbox_rows` in that same transaction, by the catalog in force.
"""

from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from edge.tracking.catalog import Catalog
from edge.tracking.postbacks import targets_of
from edge.tracking.urls import host_of
from storage.postgres.copy import Uuid
from storage.postgres.outbox import OutboxRow

DECIDED = "decided"


class Announcement(NamedTuple):
    """A conversion as it now is. `event` names what brought it there, each time another: it is told once for each."""

    conversion_id: Uuid
    event: str
    status: str
    aff_id: int
    offer_id: int
    goal_id: int
    amount: Decimal
    payout: Decimal
    revenue: Decimal
    currency: str


def outbox_rows(catalog: Catalog, told: Announcement, *, actor: str = "") -> Iterator[OutboxRow]:
    """A row for each address that the partner wants to hear of this at. `actor`: who asked for a replay."""
    partner = catalog.partner(told.aff_id) if told.aff_id else None
    if partner is None:
        return
    for target in targets_of(partner, told.offer_id, told.goal_id, told.status):
        yield OutboxRow(
            told.conversion_id,
            told.event,
            told.status,
            target.number,
            told.aff_id,
            told.offer_id,
            told.goal_id,
            told.amount,
            told.payout,
            told.revenue,
            told.currency,
            target.method,
            target.url,
            _host_of(target.url),
            catalog.revision,
            actor,
        )


_host_of = lru_cache(maxsize=4096)(host_of)
