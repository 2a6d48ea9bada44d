"""`/edge.js`, the script for advertisers' pages: read once, cached by browsers for minutes."""

import re
from hashlib import sha256
from importlib import resources

from aiohttp import hdrs, web

from edge.http.answers import to_response
from edge.tracking.request import Answer

PATH = "/edge.js"
MAX_AGE_S = 300
_NOT_ALLOWED = Answer(405, b"method not allowed\n", allow="GET, HEAD")


def _read() -> bytes:
    """The file beside this one, without indentation and whole-line comments."""
    source = (resources.files("edge.http") / "edge.js").read_text("utf-8")
    return re.sub(r"^ *//.*\n|^\n|^ +", "", source, flags=re.MULTILINE).encode()


SCRIPT = _read()
ETAG = f'"{sha256(SCRIPT).hexdigest()[:16]}"'
_HEADERS = {
    hdrs.CACHE_CONTROL: f"public, max-age={MAX_AGE_S}",
    hdrs.ETAG: ETAG,
    # For pages that pin it with `integrity`, or that isolate themselves.
    hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
}


def script_response(method: str, if_none_match: str | None) -> web.Response:
    """The script, or 304 to who has it."""
    if method not in ("GET", "HEAD"):
        return to_response(_NOT_ALLOWED)
    has_it = if_none_match is not None and ETAG in if_none_match
    answer = Answer(304) if has_it else Answer(200, SCRIPT, "text/javascript; charset=utf-8")
    response = to_response(answer)
    response.headers.update(_HEADERS)
    return response
