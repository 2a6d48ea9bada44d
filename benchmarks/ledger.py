"""What a load run sent and what was answered, by the kind of row it must become; the reconciliation holds it against Postgres."""

from collections import Counter
from dataclasses import dataclass, field

CLICKS, BOTS, PREVIEWS, IMPRESSIONS = "clicks", "clicks by bots", "previews (HEAD)", "impressions"
APPROVED, DUPLICATES, FORGED = "conversions approved", "conversions duplicate", "conversions forged"
KINDS = (CLICKS, BOTS, PREVIEWS, IMPRESSIONS, APPROVED, DUPLICATES, FORGED)


@dataclass
class Ledger:
    """`run`: the mark that each row of this run carries, clicks and impressions in aff_sub5, conversions in adv_sub5."""

    run: str
    sent: dict[str, int] = field(default_factory=Counter)
    answered: dict[str, int] = field(default_factory=Counter)
    click_ids: list[str] = field(default_factory=list)
    """From the Locations of all clicks, previews too."""
    unstored_before: float | None = None
    """edge_unstored_refusals_total before the run; None when nobody asked."""
