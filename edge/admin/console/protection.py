"""What every answer of the console says to the browser, and what a request that changes something must show."""

import time
from collections import OrderedDict

from aiohttp import web

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
FAILURES_ALLOWED = 10
FORGIVEN_AFTER_S = 60.0
_ADDRESSES = 10_000


def protect(response: web.StreamResponse) -> None:
    """Add the headers, but for those that the answer has its own of; pages are kept by nobody."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")


def is_https(request: web.Request) -> bool:
    """Whether the browser speaks TLS, to us or to a proxy before us."""
    return request.secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https"


def comes_from_elsewhere(request: web.Request) -> bool:
    """Whether the browser says that another site's page made this request."""
    site = request.headers.get("Sec-Fetch-Site", "")
    if site:
        return site not in ("same-origin", "none")
    origin = request.headers.get("Origin", "")
    return bool(origin) and origin.partition("://")[2] != request.host


class Attempts:
    """Failed log-ins by address: too many, and the address waits."""

    def __init__(self) -> None:
        self._failed: OrderedDict[str, list[float]] = OrderedDict()

    def wait_s(self, address: str, now_s: float | None = None) -> float:
        """How long this address must wait before it may try again; 0: not at all."""
        now_s = time.monotonic() if now_s is None else now_s
        failed = [moment for moment in self._failed.get(address, ()) if now_s - moment < FORGIVEN_AFTER_S]
        return FORGIVEN_AFTER_S - (now_s - failed[0]) if len(failed) >= FAILURES_ALLOWED else 0.0

    def note_failure(self, address: str, now_s: float | None = None) -> None:
        """One more key that was wrong."""
        now_s = time.monotonic() if now_s is None else now_s
        kept = [moment for moment in self._failed.pop(address, ()) if now_s - moment < FORGIVEN_AFTER_S]
        self._failed[address] = [*kept, now_s][-FAILURES_ALLOWED:]
        while len(self._failed) > _ADDRESSES:
            self._failed.popitem(last=False)

    def forget(self, address: str) -> None:
        """A key was right."""
        self._failed.pop(address, None)
