"""What the headers of a request say, as far as a handler asks: read once, kept as plain clean text."""

from collections.abc import Iterable
from functools import lru_cache

import msgspec

from edge.tracking.parameters import clean

MAX_USER_AGENT_CHARS = 512
MAX_REFERRER_CHARS = 1024
MAX_LANGUAGE_CHARS = 64
GPC, DNT = 1, 2
"""Ways to object: Global Privacy Control (`Sec-GPC: 1`), and Do Not Track (`DNT: 1`)."""
PREFETCH_NAMES = ("sec-purpose", "purpose", "x-purpose", "x-moz")
_PREFETCH_WORDS = ("prefetch", "preview", "prerender")
_READ = frozenset(("user-agent", "referer", "accept-language", "cookie", "sec-gpc", "dnt", "authorization", *PREFETCH_NAMES))


@lru_cache(4096)
def share(user_agent: str) -> str:
    """The same text, and of what was seen lately the same object: sessions keep it, most of them one of a few."""
    return user_agent


def first_language(accept_language: str) -> str:
    """The first tag of an Accept-Language header, which browsers write in the order of preference; "" for none."""
    tag = accept_language.partition(",")[0].partition(";")[0].strip()
    return "" if tag == "*" else tag


class Headers(msgspec.Struct, frozen=True, gc=False):
    """Text is cut and cleaned, except `cookie`, which is as sent. "" stands for none."""

    user_agent: str = ""
    referrer: str = ""
    language: str = ""
    cookie: str = ""
    is_prefetch: bool = False
    opts_out: int = 0
    """GPC, DNT, both (their sum) or 0: one number, so that the common request is asked once."""
    authorization: str = ""
    """As sent; read only where header lines are read one by one, as those of a POST are."""


def read_headers(pairs: Iterable[tuple[str, str]]) -> Headers:
    """The facts in `pairs` of name and value; of a repeated name the first counts, whatever its case."""
    sent: dict[str, str] = {}
    for name, value in pairs:
        lower = name.lower()
        if lower in _READ and lower not in sent:
            sent[lower] = value
    get = sent.get
    return Headers(
        share(clean(get("user-agent", "")[:MAX_USER_AGENT_CHARS])),
        clean(get("referer", "")[:MAX_REFERRER_CHARS]),
        clean(get("accept-language", "")[:MAX_LANGUAGE_CHARS]),
        get("cookie", ""),
        any(word in sent[name].lower() for name in PREFETCH_NAMES if name in sent for word in _PREFETCH_WORDS),
        GPC * (get("sec-gpc") == "1") + DNT * (get("dnt") == "1"),
        get("authorization", ""),
    )
