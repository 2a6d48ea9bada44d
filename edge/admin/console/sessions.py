"""Log-ins: a signed cookie that names a key; of those that were ended by logging out, a line each is kept.

The cookie is `key id . expiry in Unix seconds . print of the key . random . tag`. A key that is revoked, or another one
under its id, ends all its sessions: the print says which key it was, and each request asks whether it still stands.
"""

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

COOKIE = "clickedge_session"
LASTS_S = 12 * 3600
_FORM = re.compile(r"(?P<body>(?P<key_id>\d{1,10})\.(?P<expires_s>\d{1,12})\.(?P<key_print>[0-9a-f]{16})\.[0-9a-f]{16})\.[0-9a-f]{64}", re.ASCII)


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
        body = f"{key_id}.{int(now_s) + LASTS_S}.{self._tag('key', key_print)[:16]}.{secrets.token_hex(8)}"
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


class Ended:
    """Sessions that were ended before their time, in a file of the data dir: `hash of the cookie` `expiry`, a line each.

    Without it a cookie that somebody copied would outlive the log-out by hours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = dict(self._read())

    def add(self, cookie: str, session: Session) -> None:
        """From now on, and after a restart, this cookie is none."""
        now_s = time.time()
        self._known = {one: until_s for one, until_s in self._known.items() if until_s > now_s}
        self._known[_hash(cookie)] = session.expires_s
        fresh = self._path.with_name(f".{self._path.name}.fresh")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.writelines(f"{one} {until_s}\n" for one, until_s in self._known.items())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)

    def __contains__(self, cookie: str) -> bool:
        return _hash(cookie) in self._known

    def _read(self) -> Iterator[tuple[str, int]]:
        try:
            lines = self._path.read_text(encoding="ascii", errors="replace").splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            one, _, until_s = line.partition(" ")
            if until_s.isdigit():
                yield one, int(until_s)


def _hash(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogateescape")).hexdigest()
