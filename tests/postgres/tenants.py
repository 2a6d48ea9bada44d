"""Two partners and two advertisers in one database, and the words by which what is not theirs is told in any answer.

Everything that somebody must not see has a text or a figure of its own, so that a search in the bytes of an answer finds it.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from edge.drain.catalogs import CatalogHistory
from edge.drain.changing import change_conversion
from edge.tracking.changes import Wanted
from storage.postgres.contacts import ContactRow, upsert_contacts
from tests.postgres.api import add_key
from tests.postgres.drains import Bench, open_bench

CATALOG = """
[[advertisers]]
id = 1
name = "Outletforce"
ref = "ref-of-outletforce"
security_token = "s3cret-of-outletforce"
[[advertisers]]
id = 2
name = "Kaffeehaus"
security_token = "s3cret-of-kaffeehaus"
[[advertisers]]
id = 3
name = "Signed"
signing_secret = "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
[[partners]]
id = 2
name = "Deal Blog"
postback_url = "https://two.example/pb?cid={aff_click_id}"
postback_secret = "whsec_dHdvdHdvdHdvdHdvdHdvdHdvdHdvdHdv"
[[partners]]
id = 3
name = "Coupon Corner"
postback_url = "https://three.example/pb?cid={aff_click_id}"
postback_secret = "whsec_dGhyZWV0aHJlZXRocmVldGhyZWV0aHJlZQ=="
[[offers]]
id = 17
advertiser_id = 1
name = "Holiday decor"
ref = "ref-of-decor"
url = "https://decor.example/?clickid={transaction_id}"
payout = "2005.31"
revenue = "3007.53"
promo_codes = [{ code = "TWO-CODE", aff_id = 2 }, { code = "THREE-CODE", aff_id = 3 }]
landing_pages = [{ id = 1, name = "Winter page", url = "https://winter.decor.example/" }]
creatives = [{ id = 1, name = "Decor banner" }]
rules = [{ when = { country = ["ZZ"] }, then = { reject = "rule-of-decor" } }]
[[offers.goals]]
id = 1
name = "lead"
payout = "2001.13"
revenue = "3001.57"
[[offers.overrides]]
aff_id = 3
payout = "2006.66"
[[offers]]
id = 18
advertiser_id = 2
name = "Espresso machines"
url = "https://coffee.example/?clickid={transaction_id}"
payout = "2003.19"
revenue = "3004.43"
[[offers.goals]]
id = 2
name = "Grinder goal"
[[aliases]]
path = "SL2"
kind = "click"
params = { offer_id = "17", aff_id = "2" }
"""
KEYS = {"admin": (0, 0), "reports": (0, 0), "advertiser": (1, 0), "partner": (0, 2)}
"""Token and scope of a key, and its advertiser and partner."""
FORBIDDEN = {
    "partner": (
        "3007.53", "3004.43", "3001.57", "1002.22", "1000.77", "203.0.113", "198.51.100", "canary-agent", "s3cret", "whsec", "Outletforce",
        "Kaffeehaus", "ref-of", "Corner", "of-three", "three.example", "THREE-CODE", "2006.66", "order-of", "margin-of",
        "vip-list", "Manager Mia", "note-of", "decor.example", "coffee.example", "rule-of",
    ),
    "advertiser": (
        "2005.31", "2003.19", "2001.13", "1002.22", "1000.77", "2006.66", "203.0.113", "canary-agent", "s3cret", "whsec", "Kaffeehaus",
        "Espresso", "Grinder", "coffee.example", "ref-of", "two.example", "three.example", "click-id-of", "word-of",
        "from-two.test/page", "of-three", "vip-list", "Manager Mia", "note-of", "on-coffee", "rule-of", "CODE",
    ),
    "reports": ("s3cret", "whsec"),
    "admin": ("s3cret", "whsec"),
}  # fmt: skip
"""In no answer to a key of that scope. 1002.22 is the profit of a sale of offer 17."""


class Tenants(NamedTuple):
    """`mine`: partner 2's click and conversion on offer 17; `theirs`: partner 3's on offer 18."""

    url: str
    mine: tuple[str, str]
    theirs: tuple[str, str]


async def settle(data_dir: Path, url: str) -> Tenants:
    """The catalog, a click, a view and a sale of each partner, a change by a manager, contacts, costs, postbacks, keys."""
    async with open_bench(data_dir, url) as bench:
        revision = await bench.apply(CATALOG)
        contacts = [ContactRow(f"contact-of-{name}", "vip-list", None) for name in ("two", "three")]
        await upsert_contacts(bench.conn, contacts)
        mine = await _sell(bench, revision, 2, 17, "two", "decor")
        theirs = await _sell(bench, revision, 3, 18, "three", "on-coffee")
        await bench.conn.execute(
            "INSERT INTO costs (day, offer_id, aff_id, creative_id, list, currency, amount, sends, feed)"
            " VALUES (current_date, 17, 2, 0, 'vip-list', 'USD', 1000.77, 7777, 'feed-of-ours')"
        )
        for _, conversion_id in (mine, theirs):
            for wanted in (Wanted("reversed", "fraud"), Wanted("approved")):
                await change_conversion(
                    bench.conn, CatalogHistory(), UUID(conversion_id), wanted, actor="Manager Mia", note="note-of-mia"
                )
    for scope, (advertiser_id, aff_id) in KEYS.items():
        await add_key(url, scope, scope, advertiser_id, aff_id)
    return Tenants(url, mine, theirs)


async def _sell(bench: Bench, revision: int, aff_id: int, offer_id: int, who: str, where: str) -> tuple[str, str]:
    scribe = bench.scribe(revision=revision, worker=aff_id)
    params = {
        "aff_sub1": f"sub-of-{who}", "source": f"source-of-{who}", "aff_click_id": f"click-id-of-{who}", "cost": "1000.77",
        "own_word": f"word-of-{who}", "utm_source": f"utm-of-{who}-{where}",
    }  # fmt: skip
    fields: dict[str, Any] = {"offer_id": offer_id, "aff_id": aff_id, "contact_id": f"contact-of-{who}", "user_agent": f"canary-agent/{who}"}
    scribe.impression(params=params, **fields)
    click_id = scribe.click(params=params, **fields)
    token = "s3cret-of-kaffeehaus" if offer_id == 18 else "s3cret-of-outletforce"
    conversion_id = scribe.convert(
        click_id, amount="40.07", adv_sub1=f"order-of-{where}", conversion_unique_id=f"order-of-{where}-1",
        shop_margin=f"margin-of-{where}", security_token=token,
    )  # fmt: skip
    await bench.drain()
    await bench.conn.execute("UPDATE clicks SET referrer = $1 WHERE aff_id = $2", f"https://from-{who}.test/page", aff_id)
    return click_id.hex(), conversion_id.hex()


def month() -> str:
    """The one that runs."""
    return f"{datetime.now(UTC):%Y-%m}"
