"""`/edge.js`, the script for advertisers' pages: read once, cached by browsers for minutes.

`/edge.js/OFFER` tells the script whether the offer goes with cookies: asked before anything is kept or read.
"""

import re
from hashlib import sha256
from importlib import resources

from aiohttp import hdrs, web

from edge.http.answers import to_response
from edge.tracking.catalog import Catalog
from edge.tracking.parameters import to_id
from edge.tracking.request import Answer

PATH = "/edge.js"
MAX_AGE_S = 300
OFFER_PATH = f"{PATH}/"
_NOT_ALLOWED = Answer(405, b"method not allowed\n", allow="GET, HEAD")


def _read() -> bytes:
    """The file beside this one, without indentation and whole-line comments."""
    source = (resources.files("edge.http") / "edge.js").read_text("utf-8")
    return re.sub(r"^ *//.*\n|^\n|^ +", "", source, flags=re.MULTILINE).encode()


def etag_of(script: bytes) -> str:
    """What names this version."""
    return f'"{sha256(script).hexdigest()[:16]}"'


_DNT = b"/*dnt*/"
_SOURCE = _read()
SCRIPT = _SOURCE.replace(_DNT, b"")
DNT_SCRIPT = _SOURCE.replace(_DNT, b'||navigator.doNotTrack=="1"')
"""Where Do Not Track is honoured."""
_HEADERS = {
    hdrs.CACHE_CONTROL: f"public, max-age={MAX_AGE_S}",
    # For pages that pin it with `integrity`, or that isolate themselves.
    hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
}


def script_response(method: str, if_none_match: str | None, *, honours_dnt: bool = False) -> web.Response:
    """The script, or 304 to who has it."""
    if method not in ("GET", "HEAD"):
        return to_response(_NOT_ALLOWED)
    script = DNT_SCRIPT if honours_dnt else SCRIPT
    etag = etag_of(script)
    has_it = if_none_match is not None and etag in if_none_match
    answer = Answer(304) if has_it else Answer(200, script, "text/javascript; charset=utf-8")
    response = to_response(answer)
    response.headers.update({**_HEADERS, hdrs.ETAG: etag})
    return response


def offer_response(method: str, catalog: Catalog, offer_id: str) -> web.Response:
    """Whether cookies may be kept and read for that offer; of one that nobody knows, not."""
    if method not in ("GET", "HEAD"):
        return to_response(_NOT_ALLOWED)
    offer = catalog.offer(to_id(offer_id))
    body = b'{"cookies":true}' if offer is not None and offer.cookies else b'{"cookies":false}'
    response = to_response(Answer(200, body, "application/json"))
    response.headers.update(_HEADERS)
    return response
