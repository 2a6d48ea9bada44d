"""What a worker's handlers share: the catalog in force, the ids, the sessions and the counters."""

import secrets
from dataclasses import dataclass, field

from edge.counters import Counters
from edge.tracking.allowances import Allowance, SenderAllowances
from edge.tracking.caps import Capped
from edge.tracking.catalog import Catalog
from edge.tracking.click_id import ClickIds
from edge.tracking.macros import Template
from edge.tracking.redirects import Hops
from edge.tracking.sessions import Sessions
from edge.tracking.surroundings import Enrichment, NoEnrichment
from edge.tracking.visitors import Visitors
from storage.journal.events import Session

REFUSALS_PER_S = 10
REFUSALS_BURST = 100
"""Of one sender's network."""
ALL_REFUSALS_PER_S = 2 * REFUSALS_PER_S
ALL_REFUSALS_BURST = 2 * REFUSALS_BURST
"""Of all together: who floods from one place does not keep out of the database what others send wrongly."""
UNVERIFIED_PER_S = 100
UNVERIFIED_BURST = 10_000
"""As many come at once when an advertiser sends a day's conversions again."""


@dataclass(slots=True)
class EdgeState:
    """`catalog`, `capped` and `has_external_ids` are replaced whole, by the worker's followers, between two requests."""

    catalog: Catalog
    ids: ClickIds
    sessions: Sessions[Session]
    counters: Counters
    fallback: Template | None = None
    honour_gpc: bool = True
    honour_dnt: bool = False
    capped: Capped = field(default_factory=dict)
    has_external_ids: bool = False
    """Whether any click of the network carried an id of its sender's: then a postback's id need not be ours."""
    # Without secrets given, of use to this process alone: nobody could guess them.
    visitors: Visitors = field(default_factory=lambda: Visitors(secrets.token_hex()))
    hops: Hops = field(default_factory=lambda: Hops([secrets.token_hex()]))
    enrichment: Enrichment = field(default_factory=NoEnrichment)
    refusals: Allowance = field(default_factory=lambda: Allowance(ALL_REFUSALS_PER_S, ALL_REFUSALS_BURST))
    """How many forged or session-less conversions are stored; the others are counted."""
    refusals_of: SenderAllowances = field(default_factory=lambda: SenderAllowances(REFUSALS_PER_S, REFUSALS_BURST))
    """How many of them of one sender."""
    unverified: SenderAllowances = field(default_factory=lambda: SenderAllowances(UNVERIFIED_PER_S, UNVERIFIED_BURST))
    """How many postbacks that name no click of ours are taken; the others are to be sent again later."""
