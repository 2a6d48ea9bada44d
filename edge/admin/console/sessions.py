"""Log-ins: a signed cookie that names a key, and nothing kept on our side.

The cookie is `key id . expiry in Unix seconds . print of the key . tag`. A key that is revoked, or another one under
its id, ends all its sessions: the print says which key it was, and each request asks whether it still stands.
"""

import hashlib
import hmac
import re
from typing import NamedTuple

COOKIE = "clickedge_session"
LASTS_S = 12 * 3600
_FORM = re.compile(r"(?P<body>(?P<key_id>\d{1,10})\.(?P<expires_s>\d{1,12})\.(?P<key_print>[0-9a-f]{16}))\.[0-9a-f]{64}")


class Session(NamedTuple):
    """Who logged in with which key, and until when."""

    key_id: int
    expires_s: int
    key_print: str


class Signer:
    """Makes and reads session cookies and the tokens of forms."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def _tag(self, purpose: str, text: str) -> str:
        return hmac.new(self._secret, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()

    def is_of(self, session: Session, key_print: str) -> bool:
        """Whether it was this very key that logged in."""
        return hmac.compare_digest(session.key_print, self._tag("key", key_print)[:16])

    def issue(self, key_id: int, key_print: str, now_s: float) -> str:
        """A cookie's value. `key_print`: what tells this key from another of the same id."""
        body = f"{key_id}.{int(now_s) + LASTS_S}.{self._tag('key', key_print)[:16]}"
        return f"{body}.{self._tag('session', body)}"

    def read(self, cookie: str, now_s: float) -> Session | None:
        """What a cookie says; None if we did not make it, or it is too old."""
        found = _FORM.fullmatch(cookie)
        if not found or not hmac.compare_digest(f"{found['body']}.{self._tag('session', found['body'])}", cookie):
            return None
        session = Session(int(found["key_id"]), int(found["expires_s"]), found["key_print"])
        return session if now_s < session.expires_s else None

    def form_token(self, cookie: str) -> str:
        """What each form of that session carries (CSRF): another site's page cannot know it."""
        return self._tag("form", cookie)

    def is_form_token(self, cookie: str, token: str) -> bool:
        """Whether a form that came with this cookie was made by us for it."""
        return hmac.compare_digest(self.form_token(cookie), token if token.isascii() else "")
