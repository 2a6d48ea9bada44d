"""URL templates: `{macro}`s in offer URLs and postbacks, compiled when the catalog loads, filled in per request."""

import re
from collections.abc import Callable, Mapping

from edge.tracking.urls import encode_url, encode_value

_ALIASES = {
    "affiliate_id": "aff_id",
    "aff_name": "affiliate_name",
    "aff_ref": "affiliate_ref",
    "aff_sub": "aff_sub1",
    "adv_sub": "adv_sub1",
    "offer_url_id": "url_id",
    "offer_file_id": "file_id",
    "sale_amount": "amount",
    "country": "country_code",
    "region": "region_code",
    "os": "device_os",
}
_NAMES = frozenset(
    """
    offer_id offer_name offer_ref url_id file_id file_name goal_id goal_name aff_id affiliate_name affiliate_ref
    advertiser_id advertiser_ref source aff_sub1 aff_sub2 aff_sub3 aff_sub4 aff_sub5 aff_click_id
    aff_unique1 aff_unique2 aff_unique3 aff_unique4 aff_unique5 adv_sub1 adv_sub2 adv_sub3 adv_sub4 adv_sub5
    adv_unique1 adv_unique2 adv_unique3 adv_unique4 adv_unique5 transaction_id conversion_unique_id promo_code status
    conversion_id
    session_ip ip country_code region_code city mobile_carrier user_agent language
    device_type device_brand device_model device_os device_os_version browser device_id
    google_aid google_aid_sha1 ios_ifa ios_ifa_sha1 windows_aid unid
    payout revenue amount currency cost customer_id contact_id date time datetime ran params
    utm_source utm_medium utm_campaign utm_content utm_term
    """.split()  # noqa: SIM905 -- eighty quoted names would be harder to read
)
# Its value is a query string already, not one value: encoding `=` and `&` would make it useless.
_WHOLE_QUERY = "params"
_MACRO = re.compile(r"\{([A-Za-z0-9_.:-]{1,64})\}")

OUR_NOTES = frozenset(("dialect", "requested_offer_id", "rule", "rule_reason"))
"""What we keep among a click's parameters ourselves: nobody sent it, so `{params}` does not tell it."""

Values = Mapping[str, str] | Callable[[str], str | None]


def canonical(name: str) -> str:
    """The one name under which a macro's value is asked for; "" for an unknown macro."""
    name = _ALIASES.get(name, name)
    return name if name in _NAMES else ""


def find_unknown_macros(url: str) -> list[str]:
    """The macros in `url` that will expand to nothing because nobody knows them."""
    return [name for name in _MACRO.findall(url) if not canonical(name)]


class Template:
    """A compiled URL: its pieces with an empty string for each macro, whose places and canonical names are the slots."""

    __slots__ = ("pieces", "slots")

    def __init__(self, pieces: list[str], slots: list[tuple[int, str]]) -> None:
        self.pieces = pieces
        self.slots = slots

    def expand(self, values: Values) -> str:
        """The URL, printable ASCII. `values` by canonical name; what is missing expands to nothing."""
        get = values if callable(values) else values.get
        pieces = self.pieces.copy()
        for index, name in self.slots:
            value = get(name)
            if value:
                pieces[index] = encode_macro(name, value)
        return "".join(pieces)


def encode_macro(name: str, value: str) -> str:
    """A macro's value for its place in a URL, printable ASCII."""
    return encode_value(value) if name != _WHOLE_QUERY else encode_url(value)


def compile_template(url: str) -> Template:
    """The template of `url`; bytes of its literal parts outside RFC 3986 become `%XX`."""
    pieces: list[str] = []
    slots: list[tuple[int, str]] = []
    for index, part in enumerate(_MACRO.split(url)):
        name = canonical(part) if index % 2 else ""
        if name:
            slots.append((len(pieces), name))
        pieces.append("" if index % 2 else encode_url(part))
    return Template(pieces, slots)
