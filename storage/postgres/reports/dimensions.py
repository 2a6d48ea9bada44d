"""What reports can be grouped and filtered by."""

from typing import Literal, NamedTuple

from storage.postgres.reports.viewer import EVERYBODY, NETWORK, Scope

Kind = Literal["id", "text", "date", "week", "month", "hour"]
SQL_TYPES: dict[Kind, str] = {
    "id": "int",
    "text": "text",
    "date": "date",
    "week": "date",
    "month": "date",
    "hour": "timestamptz",
}
EXTRA = "extra."
MAX_EXTRA_CHARS = 64


class Dimension(NamedTuple):
    """`meaning`: what stands in its column; ids are 0 and texts empty for none."""

    name: str
    label: str
    kind: Kind
    meaning: str
    scopes: tuple[Scope, ...] = EVERYBODY

    @property
    def is_time(self) -> bool:
        return self.kind not in ("id", "text")


_TABLE = (
    Dimension("date", "Date", "date", "the day in the report's time zone"),
    Dimension("hour", "Hour", "hour", "the hour in the report's time zone, with its offset"),
    Dimension("week", "Week", "week", "the Monday on which the ISO week begins"),
    Dimension("month", "Month", "month", "the first day of the month"),
    Dimension("advertiser", "Advertiser", "id", "the advertiser of the offer", ("admin", "reports", "advertiser")),
    Dimension("offer", "Offer", "id", "the offer's id"),
    Dimension("partner", "Partner", "id", "the partner's id (`aff_id`)"),
    Dimension("goal", "Goal", "id", "the conversion's goal; clicks and impressions have none"),
    Dimension("landing_page", "Landing page", "id", "the landing page's id (`url_id`), which the offer gave"),
    Dimension("creative", "Creative", "id", "the creative's id (`file_id`), which the offer gave"),
    Dimension("alias", "Alias", "text", "the short link that was followed"),
    Dimension("source", "Source", "text", "the click's `source`"),
    *(Dimension(f"aff_sub{n}", f"Sub {n}", "text", f"the click's `aff_sub{n}`") for n in range(1, 6)),
    *(
        Dimension(f"utm_{name}", f"UTM {name}", "text", f"the click's `utm_{name}`")
        for name in ("source", "medium", "campaign", "content", "term")
    ),
    Dimension("contact", "Contact", "text", "the contact's id (`contact_id`)"),
    Dimension("country", "Country", "text", "two letters"),
    Dimension("region", "Region", "text", "as the geo database names it"),
    Dimension("city", "City", "text", "as the geo database names it"),
    Dimension("device", "Device", "text", "desktop, mobile, tablet, …"),
    Dimension("os", "OS", "text", "the operating system"),
    Dimension("browser", "Browser", "text", "the browser"),
    Dimension("language", "Language", "text", "the browser's first language"),
    Dimension("referrer_host", "Referrer host", "text", "the host of the page that the click came from"),
    Dimension("status", "Status", "text", "the conversion's status now; clicks and impressions have none"),
    Dimension("promo_code", "Promo code", "text", "the conversion's promo code; clicks and impressions have none"),
    Dimension("list", "List", "text", "the sending list: the click's parameter `list`, else the contact's list", NETWORK),
    Dimension("currency", "Currency", "text", "three letters"),
)
DIMENSIONS: dict[str, Dimension] = {one.name: one for one in _TABLE}

_UTM = ("source", "medium", "campaign", "content", "term")
FIRST_TOUCH = frozenset(("source", *(f"aff_sub{n}" for n in range(1, 6)), *(f"utm_{name}" for name in _UTM)))
"""What `touch=first` reads from the first touch; everything else stays the click's or the conversion's own."""
SPREAD = FIRST_TOUCH | {
    "partner", "landing_page", "creative", "alias", "country", "region", "city", "device", "os", "browser", "language",
    "referrer_host", "list",
}  # fmt: skip
"""What differs between the touches over which a conversion is spread."""


def find_dimension(name: str) -> Dimension | None:
    """The dimension of that name, `extra.<name>` too; None if there is none."""
    found = DIMENSIONS.get(name)
    if found is None and name.startswith(EXTRA) and 0 < len(name) - len(EXTRA) <= MAX_EXTRA_CHARS and "\0" not in name:
        key = name[len(EXTRA) :]
        return Dimension(name, key, "text", f"the parameter `{key}`, which has no column of its own")
    return found
