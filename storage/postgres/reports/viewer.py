"""Who looks at a report: which rows are theirs, and which figures they may see."""

from typing import Literal

import msgspec

Scope = Literal["admin", "reports", "advertiser", "partner"]
NETWORK: tuple[Scope, ...] = ("admin", "reports")
EVERYBODY: tuple[Scope, ...] = ("admin", "reports", "advertiser", "partner")


class Viewer(msgspec.Struct, frozen=True):
    """An advertiser sees its own rows without payout, profit and cost; a partner its own without revenue, profit and cost."""

    scope: Scope = "admin"
    advertiser_id: int = 0
    aff_id: int = 0

    @property
    def own_rows(self) -> dict[str, int]:
        """The one value that a dimension must have in every row that this viewer is shown; empty: all rows."""
        if self.scope == "advertiser":
            return {"advertiser": self.advertiser_id}
        return {"partner": self.aff_id} if self.scope == "partner" else {}

    @property
    def earnings(self) -> str:
        """What this viewer earns: the numerator of EPC."""
        return "payout" if self.scope == "partner" else "revenue"


ADMIN = Viewer()
