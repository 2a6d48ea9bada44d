"""What handlers are given: a catalog with offers of many kinds, the state of a worker, and a request."""

from edge.counters import Counters
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import encode_item
from edge.tracking.catalog_file import read_catalog
from edge.tracking.click_id import ClickIds, Lease
from edge.tracking.headers import read_headers
from edge.tracking.macros import compile_template
from edge.tracking.parameters import parse_query
from edge.tracking.redirects import Hops
from edge.tracking.request import Request
from edge.tracking.sessions import Sessions
from edge.tracking.state import EdgeState
from edge.tracking.visitors import Visitors

SECRET = "a secret of the tests' own"
CATALOG = """
[[advertisers]]
id = 1
name = "Outletforce"

[[partners]]
id = 2
name = "Deal Blog & Söhne"

[[partners]]
id = 3
name = "Blocked"
status = "blocked"

[[offers]]
id = 17
advertiser_id = 1
name = "Holiday decor"
url = "https://shop.example.com/landing?clickid={transaction_id}&p={aff_id}&s={aff_sub}"
payout = "5.00"
goals = [{ id = 1, name = "lead" }, { id = 2, name = "sale, first" }]
landing_pages = [{ id = 1, url = "https://pages.example.com/a?clickid={transaction_id}" }]

[[offers]]
id = 18
advertiser_id = 1
name = "First click wins"
url = "https://first.example.com/{source}/{transaction_id}"
attribution = "first"
click_window = "14d"

[[offers]]
id = 20
advertiser_id = 1
name = "Paused"
url = "https://paused.example.com/"
status = "paused"
redirect_offer_id = 21

[[offers]]
id = 21
advertiser_id = 1
name = "Expired"
url = "https://expired.example.com/"
status = "expired"
redirect_offer_id = 22

[[offers]]
id = 22
advertiser_id = 1
name = "Over"
url = "https://over.example.com/"
expires_at = "2020-01-01T00:00:00Z"
redirect_offer_id = 17

[[offers]]
id = 24
advertiser_id = 1
name = "Paused without a stand-in"
url = "https://paused.example.com/"
status = "paused"

[[aliases]]
path = "SL2"
kind = "click"
params = { offer_id = 17, aff_id = 2, aff_sub = "frozen" }

[[aliases]]
path = "IM1"
kind = "impression"
params = { offer_id = 17, aff_id = 2 }

[[aliases]]
path = "SP1"
kind = "postback"
params = { offer_id = 17 }

[[aliases]]
path = "PX1"
kind = "pixel"
params = { offer_id = 17 }

[[aliases]]
path = "GP1"
kind = "goal_postback"
params = { goal_id = 1 }

[[aliases]]
path = "GL1"
kind = "goal_pixel"
params = { offer_id = 17, goal_id = 1 }
"""
DELIVERY = """
[[offers]]
id = 40
advertiser_id = 1
name = "Rotated"
url = "https://shop.example.com/own"
landing_pages = [
  { id = 1, url = "https://pages.example.com/a?c={transaction_id}", weight = 70 },
  { id = 2, url = "https://pages.example.com/b?c={transaction_id}", weight = 30 },
  { id = 3, url = "https://pages.example.com/c?c={transaction_id}" },
]

[[offers]]
id = 41
advertiser_id = 1
name = "Ruled"
url = "https://shop.example.com/own?c={transaction_id}"
redirect_offer_id = 17
landing_pages = [{ id = 4, url = "https://pages.example.com/fr?c={transaction_id}" }]
rules = [
  { when = { language = ["fr"] }, then = { landing_page_id = 4 } },
  { when = { source = ["other"] }, then = { offer_id = 40 } },
  { when = { source = ["link"] }, then = { url = "https://first.example.com/{source}/{transaction_id}" } },
  { when = { source = ["away"], aff_sub5 = ["now"] }, then = { reject = "not from there" } },
]

[[offers]]
id = 42
advertiser_id = 1
name = "One page"
url = "https://shop.example.com/?q=%22'{source}&c={transaction_id}"
allowed_domains = ["shop.example.com"]
redirect = "single_meta_refresh"

[[offers]]
id = 43
advertiser_id = 1
name = "Two pages"
url = "https://shop.example.com/?q={source}&c={transaction_id}"
allowed_domains = ["shop.example.com"]
redirect = "double_meta_refresh"

[[offers]]
id = 44
advertiser_id = 1
name = "See other"
url = "https://shop.example.com/?c={transaction_id}"
redirect = "303"
allowed_domains = ["shop.example.com", "first.example.com"]
"""
"""Offers whose clicks depend on the click, to be added to CATALOG."""
HOSTS = frozenset(("shop.example.com", "pages.example.com", "first.example.com"))
"""Where a redirect of CATALOG may lead."""


def build_catalog(text: str = CATALOG, revision: int = 7) -> Catalog:
    """The catalog of a file, checked as `apply` checks it."""
    items = read_catalog(text, "catalog.toml", Catalog.empty()).items()
    return Catalog.empty().changed(revision, [(kind, item_id, encode_item(item)) for kind, item_id, item in items])


class Unbounded:
    """A lease of all time, for tests without a disk."""

    start_ms = 0
    through_ms = 2**47

    def cover(self, ms: int) -> None:
        """Nothing to do."""


def build_state(
    catalog: Catalog | str = CATALOG,
    lease: Lease | None = None,
    *,
    fallback: str = "",
    honour_gpc: bool = True,
    honour_dnt: bool = False,
) -> EdgeState:
    """What handlers share: worker 1 of node 3, with sessions and counters of its own."""
    return EdgeState(
        build_catalog(catalog) if isinstance(catalog, str) else catalog,
        ClickIds((SECRET,), 3, 1, lease or Unbounded()),
        Sessions(1000),
        Counters.private(),
        compile_template(fallback) if fallback else None,
        honour_gpc,
        honour_dnt=honour_dnt,
        visitors=Visitors(SECRET),
        hops=Hops((SECRET,)),
    )


NOW_MS = 1_800_000_000_000


def request_of(
    query: str = "",
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    path: str = "/aff_c",
    is_https: bool = False,
    now_ms: int = NOW_MS,
) -> Request:
    """A request as the port makes it of what arrives."""
    return Request(method, path, parse_query(query), read_headers((headers or {}).items()), "203.0.113.9", is_https, now_ms)
