"""What a vendor's table is made of: one row per kind of request, nothing but data."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
WHOLE = ""


class Sent(NamedTuple):
    """A place in a JSON reply for what the request said, or for `click_id`, `window_hours`, `problem`; null without."""

    name: str
    is_number: bool = False


class Reply(NamedTuple):
    """What the vendor's server says. A text may have `{problem}` in it; a mapping becomes JSON.

    `assumed`: which of the two was not seen in the vendor's own pages: "", "success", "failure" or "both".
    """

    success: str | Mapping[str, object]
    failure: str | Mapping[str, object]
    failure_status: int = 200
    success_status: int = 200
    said_by: str = ""
    """The parameter in which the sender says what success is to read like."""
    assumed: Literal["", "success", "failure", "both"] = ""


class Statuses(NamedTuple):
    """The parameter `name` and what its words mean to us, in small letters. Other words decide nothing."""

    name: str
    words: Mapping[str, str]
    lists: Mapping[str, str] = {}
    """Parameters that list the sender's own words for one of the vendor's: `sale_status=billed,paid`."""
    ignored_by: tuple[str, ...] = ()
    """Parameters that list words to answer and forget."""


class Items(NamedTuple):
    """Numbered parameters that list what was bought: `{price}1` times `{quantity}1`, or one of `{subtotals}1`, and so on."""

    price: str
    quantity: str
    subtotals: tuple[str, ...]
    discount: str
    """The parameter that is taken off the sum."""


class Row(NamedTuple):
    """One kind of request. In `path`, `{name}` stands for a segment that is a parameter of that name."""

    path: str
    kind: str
    tells: tuple[str, ...] = ()
    """What must be sent for this row to be meant, where others have the same path: `name` or `name=value`."""
    names: Mapping[str, str] = {}
    """The vendor's parameter -> ours, or several of ours; "" for what is not kept, as it names a person and nothing
    needs it. Of two for the same, the one further up wins."""
    statuses: Statuses | None = None
    aliases: Mapping[str, str] = {}
    """Parameters that may be the path of one of the catalog's aliases -> which of its frozen parameters then win, or
    WHOLE for all. The first one counts most."""
    goals: tuple[str, ...] = ()
    """Parameters of which the first one sent names the goal by its own name."""
    defaults: Mapping[str, str] = {}
    """Ours, where nothing was sent for them."""
    is_minor: bool = False
    """Whether `amount` is in the currency's smallest unit."""
    items: Items | None = None
    """What `amount` is the sum of, where it was not sent itself."""
    authorization: Literal["", "bearer", "basic"] = ""
    """The scheme in whose header the security token is."""
    methods: frozenset[str] = frozenset()
    """Empty: those of the kind."""
    must_resolve: bool = False
    """Whether anything but a known offer is simply not found: the path says too little by itself."""
    is_cors: bool = False
    """Whether browsers ask for leave first."""
    reply: Reply | None = None
    """None: the answer of the kind."""


class Vendor(NamedTuple):
    """A dialect. `title`: the vendor's name as it writes it; `name`: what events call it."""

    name: str
    title: str
    rows: tuple[Row, ...]


def numbered(vendors: str, ours: str, count: int = 5) -> dict[str, str]:
    """`{vendors}1` is `{ours}1`, and so on."""
    return {f"{vendors}{number}": f"{ours}{number}" for number in range(1, count + 1)}
