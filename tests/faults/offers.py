"""The catalog of the load: every kind of terms, caps, rules and pages, partners who want to be told; and its vendors' words."""

from typing import NamedTuple

TOKEN = "t0ken-of-the-second"
GOAL_ID = 1
PARTNERS = range(1, 21)
OFFERS = range(1, 11)
UNKNOWN_OFFER = 99
MANUAL_OFFER, PAUSED_OFFER, TOKEN_OFFER, INCREMENT_OFFER, TIERED_OFFER = 4, 5, 6, 7, 8
CAPPED_OFFER, RULED_OFFER = 9, 10
SOURCES = ("mail", "social", "banned", "")
_ADVERTISERS = f"""
[[advertisers]]
id = 1
name = "open"

[[advertisers]]
id = 2
name = "with a token"
security_token = "{TOKEN}"
"""
_TERMS = {
    1: 'payout = "5.00"\nrevenue = "7.50"',
    2: 'payout_type = "cpc"\npayout = "0.101"\nrevenue_type = "cpc"\nrevenue = "0.2"',
    3: 'payout_type = "cpm"\npayout = "1.25"\nrevenue_type = "cpm"\nrevenue = "2.5"',
    MANUAL_OFFER: 'payout = "1"\nrevenue = "2"\napproval = "manual"',
    PAUSED_OFFER: 'payout = "1"\nstatus = "paused"\nredirect_offer_id = 1',
    TOKEN_OFFER: 'payout_type = "cpa_percentage"\npayout_percent = "8"\nrevenue_type = "cpa_both"\nrevenue = "0.5"\n'
    'revenue_percent = "12.5"\ncurrency = "EUR"',
    INCREMENT_OFFER: 'payout_type = "cpa_percentage"\npayout_percent = "10"\nduplicates = "increment"',
    TIERED_OFFER: 'payout = "1"\nduplicates = "update"\ntiers = [{ from_conversions = 3, payout = "2" }]',
    CAPPED_OFFER: 'payout = "2"\nrevenue = "3"\nredirect_offer_id = 1\n'
    'caps = { total_conversions = 60, daily_payout = "150", daily_clicks = 900 }',
    RULED_OFFER: 'payout = "3"\nrevenue = "4"\nredirect_offer_id = 1',
}
_PARTNERS_OWN = {CAPPED_OFFER: "caps = { daily_conversions = 5 }\n"}
_PAGE = "https://shop.example.com/o{offer}p{page}?clickid={{transaction_id}}&m={{aff_sub}}"
_RULES = f"""
[[offers.landing_pages]]
id = 1
url = "{_PAGE.format(offer=RULED_OFFER, page=1)}"
weight = 70

[[offers.landing_pages]]
id = 2
url = "{_PAGE.format(offer=RULED_OFFER, page=2)}"
weight = 30

[[offers.landing_pages]]
id = 3
url = "{_PAGE.format(offer=RULED_OFFER, page=3)}"

[[offers.rules]]
when = {{ source = ["mail"], device = ["mobile"] }}
then = {{ landing_page_id = 3 }}

[[offers.rules]]
when = {{ source = ["social"] }}
then = {{ offer_id = 1 }}

[[offers.rules]]
when = {{ source = ["banned"], percentage = 50 }}
then = {{ reject = "not from there" }}
"""


class Words(NamedTuple):
    """How a vendor's advertisers tell a conversion; `token` is empty where they have no word for it."""

    target: str
    token: str
    reply: bytes


DIALECTS = (
    Words("/aff_lsr?transaction_id={id}&adv_sub={mark}&amount={amount}", "&security_token={token}", b"success=true;"),
    Words("/?nid=7&transaction_id={id}&adv1={mark}&amount={amount}", "&verification_token={token}", b"SUCCESS"),
    Words("/postback?cid={id}&payout={amount}&txid={mark}&param1={mark}", "", b"OK"),
    Words("/postback?clickid={id}&sum={amount}&event_sub1={mark}", "", b"OK"),
    Words("/none/postback?subid={id}&payout={amount}&status=sale&sub_id_1={mark}", "", b"Success"),
)


def catalog_text(listener: str = "") -> str:
    """The catalog. `listener`: where partners want to be told of conversions; "": they do not."""
    parts = [_ADVERTISERS]
    told = f'postback_url = "{listener}/pb?id={{conversion_id}}&m={{adv_sub}}"\n' if listener else ""
    parts += [f'[[partners]]\nid = {number}\nname = "partner {number}"\n{told}' for number in PARTNERS]
    for number in OFFERS:
        parts.append(
            f'[[offers]]\nid = {number}\nadvertiser_id = {2 if number == TOKEN_OFFER else 1}\nname = "offer {number}"\n'
            f'url = "https://shop.example.com/o{number}?clickid={{transaction_id}}&m={{aff_sub}}"\n'
            f"{_TERMS[number]}\n"
            f'[[offers.goals]]\nid = {GOAL_ID}\nname = "lead"\npayout = "1.10"\nrevenue = "1.30"\n'
            f'[[offers.overrides]]\naff_id = 2\npayout = "6.00"\n{_PARTNERS_OWN.get(number, "")}'
            f"{_RULES if number == RULED_OFFER else ''}"
        )
    return "\n".join(parts)
