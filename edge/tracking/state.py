"""What a worker's handlers share: the catalog in force, the ids, the sessions and the counters."""

import secrets
from dataclasses import dataclass, field

from edge.counters import Counters
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


@dataclass(slots=True)
class EdgeState:
    """`catalog`, `capped` and `has_external_ids` are replaced whole, by the worker's followers, between two requests."""

    catalog: Catalog
    ids: ClickIds
    sessions: Sessions[Session]
    counters: Counters
    fallback: Template | None = None
    honour_gpc: bool = True
    refusals_left: float = REFUSALS_BURST
    refusals_counted_ms: int = 0
    capped: Capped = field(default_factory=dict)
    has_external_ids: bool = False
    """Whether any click of the network carried an id of its sender's: then a postback's id need not be ours."""
    # Without secrets given, of use to this process alone: nobody could guess them.
    visitors: Visitors = field(default_factory=lambda: Visitors(secrets.token_hex()))
    hops: Hops = field(default_factory=lambda: Hops([secrets.token_hex()]))
    enrichment: Enrichment = field(default_factory=NoEnrichment)

    def may_store_refusal(self, now_ms: int) -> bool:
        """Whether one more forged or session-less conversion fits the stored rate (10 a second, bursts of 100)."""
        elapsed_s = max(0, now_ms - self.refusals_counted_ms) / 1000
        self.refusals_left = min(REFUSALS_BURST, self.refusals_left + elapsed_s * REFUSALS_PER_S)
        self.refusals_counted_ms = now_ms
        if self.refusals_left < 1:
            return False
        self.refusals_left -= 1
        return True
