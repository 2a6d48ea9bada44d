"""The browser's memory of a click: one cookie per offer, `first.last` click ids; of a view: another, its id.

Ours only if both ids verify; anything else in the cookie is as if there were none. Where an offer shows a visitor one of
several pages, the seed of that choice follows as `first.last.seed`: the first click had no cookie to choose by.
"""

import re
from typing import Literal

from edge.tracking.catalog import OfferView
from edge.tracking.click_id import ClickIds, ms_of
from edge.tracking.request import Request
from edge.tracking.visitors import SEED_BYTES

MAX_OFFERS = 50
_OFFER = re.compile(r"(?:^|[; ])ce_([0-9]{1,10})=", re.ASCII)
_SEED = re.compile(f"[0-9a-f]{{{2 * SEED_BYTES}}}", re.ASCII)


def session_ids(request: Request, offer: OfferView, ids: ClickIds) -> tuple[bytes, bytes] | None:
    """First and last click id of the offer's cookie, verified; None without a whole one.

    Each click renews the cookie, so that its first may be older than the offer's window: then the last stands for both.
    """
    value = _value_of(request, offer)
    if not value:
        return None
    first, _, rest = value.partition(".")
    last, dot, seed_text = rest.partition(".")
    first_id, last_id = ids.parse(first), ids.parse(last)
    if not first_id or not last_id or (dot and not _SEED.fullmatch(seed_text)):
        return None
    is_too_old = request.received_ms - ms_of(first_id) > offer.click_window_s * 1000
    return (last_id if is_too_old else first_id), last_id


def offers_in(request: Request) -> list[str]:
    """The ids of the offers whose cookies the browser sent, each once; no more than a browser keeps of one host."""
    return list(dict.fromkeys(_OFFER.findall(request.headers.cookie)))[:MAX_OFFERS]


def seed(request: Request, offer: OfferView, ids: ClickIds) -> bytes:
    """The seed that the offer's cookie remembers; empty if it has none or is not ours."""
    if not session_ids(request, offer, ids):
        return b""
    return bytes.fromhex(_value_of(request, offer).partition(".")[2].partition(".")[2])


def _value_of(request: Request, offer: OfferView) -> str:
    header = request.headers.cookie
    if not header or not offer.cookies:
        return ""
    return _value(header, offer.cookie_name)


def click_of(request: Request, offer: OfferView, touch: Literal["first", "last"], ids: ClickIds) -> bytes:
    """The click that a pixel of this offer belongs to by its cookie; empty if there is none."""
    known = session_ids(request, offer, ids)
    return known[touch == "last"] if known else b""


def touch_of(request: Request, offer: OfferView, touch: Literal["first", "last"], ids: ClickIds) -> bytes:
    """The click, or without one the view, that a pixel of this offer belongs to by its cookies; empty if there is none."""
    click_id = click_of(request, offer, touch, ids)
    if click_id or not offer.impression_window_s or not offer.cookies:
        return click_id
    return ids.parse(_value(request.headers.cookie, f"cv_{offer.id}=")) or b""


def first_click(request: Request, offer: OfferView, ids: ClickIds) -> bytes:
    """The first click the cookie remembers; empty if there is none."""
    return click_of(request, offer, "first", ids)


def remember(offer: OfferView, first: bytes, last: str, *, is_https: bool) -> str:
    """The Set-Cookie value that makes the browser remember the id written `last` as its last click of the offer."""
    secure = "; SameSite=None; Secure" if is_https else ""
    return f"{offer.cookie_name}{first.hex() if first else last}.{last}{offer.cookie_attributes}{secure}"


def remember_seed(offer: OfferView, first: bytes, last: str, seed: bytes, *, is_https: bool) -> str:
    """The same, with the seed of what the visitor was shown; without one just the same. "" of an offer without cookies."""
    if not offer.cookies:
        return ""
    if not seed:
        return remember(offer, first, last, is_https=is_https)
    return remember(offer, first or bytes.fromhex(last), f"{last}.{seed.hex()}", is_https=is_https)


def remember_view(offer: OfferView, impression_id: bytes, *, is_https: bool) -> str:
    """The Set-Cookie value that makes the browser remember its last view of the offer; "" of one without cookies."""
    if not offer.cookies:
        return ""
    secure = "; SameSite=None; Secure" if is_https else ""
    return f"cv_{offer.id}={impression_id.hex()}; Max-Age={offer.impression_window_s}; Path=/; HttpOnly{secure}"


def _value(header: str, start: str) -> str:
    """The value of the cookie whose pair begins with `start`, name and `=`; empty without one.

    The header is searched as a whole: one of semicolons alone would be 30,000 pairs.
    """
    if header.startswith(start):  # a tracker's host has mostly this one
        return header[len(start) :].partition(";")[0].rstrip(" ")
    return f";{header.replace(' ', '')}".partition(f";{start}")[2].partition(";")[0]
