"""How a browser is sent on: by status, or by pages of ours that hide where it came from.

`single_meta_refresh`: a page that sends no referrer. `double_meta_refresh`: a page that leads to `/hop`, a second one of
ours, and that to the target, which sees our origin as its referrer. `/hop` follows only what a worker signed, for one day
at least and two at most: it is no open redirect, and what leaves the catalog is soon out of reach.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b
from hmac import compare_digest
from html import escape
from typing import TYPE_CHECKING

from edge.tracking.request import Answer, Handled, Kind, Request, text

if TYPE_CHECKING:
    from edge.tracking.state import EdgeState

HOP_PATH = "/hop"
MAX_HOP_CHARS = 8000
"""A request line has 8192 bytes; what would not fit goes by one page instead of two."""
BAD_HOP = text(404, "this link is not ours, or too old")

_DAY_MS = 86_400_000
_TAG_BYTES = 16
_HTML = "text/html; charset=utf-8"
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="robots" content="noindex">
<meta name="referrer" content="{policy}">
<meta http-equiv="refresh" content="0;url={target}">
<title>One moment</title>
<p><a href="{target}">Continue</a></p>
</html>
"""
_STATUSES = {"301": 301, "302": 302, "303": 303, "307": 307}


class Hops:
    """Signs where `/hop` may lead. All workers have the same secrets: one's link is every other's."""

    __slots__ = ("_hashers",)

    def __init__(self, secrets: Sequence[str]) -> None:
        """The first of `secrets` signs, all verify."""
        keys = [blake2b(one.encode(), digest_size=32, person=b"clickedge hop").digest() for one in secrets]
        self._hashers = tuple(blake2b(digest_size=_TAG_BYTES, key=key) for key in keys)

    def link_to(self, location: str, now_ms: int) -> str:
        """The path and query of a hop to `location`."""
        packed = urlsafe_b64encode(location.encode("ascii")).decode().rstrip("=")
        return f"{HOP_PATH}?u={packed}&s={self._tag(0, packed, now_ms // _DAY_MS)}"

    def location_of(self, packed: str, tag: str, now_ms: int) -> str:
        """Where a link of today or yesterday leads; "" if nobody signed it."""
        today, sent, is_ours = now_ms // _DAY_MS, tag.encode(), False
        for number in range(len(self._hashers)):
            for day in (today, today - 1):
                is_ours |= compare_digest(self._tag(number, packed, day).encode(), sent)
        return urlsafe_b64decode(packed + "=" * (-len(packed) % 4)).decode("ascii") if is_ours else ""

    def _tag(self, number: int, packed: str, day: int) -> str:
        hasher = self._hashers[number].copy()
        hasher.update(f"{day} {packed}".encode())
        return hasher.hexdigest()


def send_to(location: str, mode: str, cookie: str, hops: Hops, now_ms: int) -> Answer:
    """The answer that leads a browser to `location`; `mode` is an offer's `redirect`."""
    status = _STATUSES.get(mode)
    if status is not None:
        return Answer(status, location=location, cookie=cookie)
    if mode == "double_meta_refresh":
        link = hops.link_to(location, now_ms)
        if len(link) <= MAX_HOP_CHARS:
            return _page(link, "no-referrer", cookie)
    return _page(location, "no-referrer", cookie)


def handle_hop(state: "EdgeState", request: Request, alias: str) -> Handled:
    """GET or HEAD `/hop`: the second page. Nothing is recorded: the click has been."""
    params = request.params
    location = state.hops.location_of(params.get("u", ""), params.get("s", ""), request.received_ms)
    if not location:
        return Handled(Kind.OTHER, "bad_request", BAD_HOP)
    return Handled(Kind.OTHER, "redirected", _page(location, "origin"))


def _page(target: str, policy: str, cookie: str = "") -> Answer:
    body = _PAGE.format(policy=policy, target=escape(target)).encode("ascii")
    extra = (("Referrer-Policy", policy), ("X-Content-Type-Options", "nosniff"))
    return Answer(200, body, _HTML, cookie=cookie, extra=extra)
