"""A query string or form into parameters: `+` and `%20` are spaces, control bytes go, bad UTF-8 becomes U+FFFD.

An empty value means absent; of a repeated parameter the last one that says something counts (a partner appends to a
link that already has the parameter). Nothing here raises on any input.
"""

from functools import lru_cache
from urllib.parse import unquote_to_bytes

MAX_PARAMETERS = 100
MAX_NAME_CHARS = 64
MAX_INT4 = 2**31 - 1
MAX_ID_DIGITS = 10

# C0, DEL, C1 and the two separators that Python's and browsers' line splitting know.
_CONTROL = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029])
_ALIASES = {"aff_sub": "aff_sub1", "adv_sub": "adv_sub1"}


def clean(value: str) -> str:
    """`value` without control characters and without lone surrogates."""
    if value.isprintable():
        return value
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").translate(_CONTROL)


def _decode(part: str) -> str:
    if "+" in part:
        part = part.replace("+", " ")
    if "%" not in part and part.isascii():
        return clean(part)
    raw = unquote_to_bytes(clean(part))
    return clean(raw.decode("utf-8", "replace"))


def parse_query(query: str) -> dict[str, str]:
    """The parameters of a raw query string, one name for what has several; at most 100."""
    params: dict[str, str] = {}
    # What trackers write has nothing to decode or to clean: found out once, not for each value.
    is_plain = query.isprintable() and query.isascii() and "%" not in query and "+" not in query
    for pair in query.split("&", MAX_PARAMETERS)[:MAX_PARAMETERS]:
        name, _, value = pair.partition("=")
        if not is_plain:
            name, value = _decode(name), _decode(value)
        if value and name:
            params[_ALIASES.get(name) or name[:MAX_NAME_CHARS]] = value
    return params


def clean_form(pairs: list[tuple[str, object]]) -> dict[str, str]:
    """The parameters of a decoded form or a flat JSON object; numbers as written, anything nested is left out."""
    params: dict[str, str] = {}
    for sent_name, value in pairs[:MAX_PARAMETERS]:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            continue
        name, cleaned = clean(sent_name)[:MAX_NAME_CHARS], clean(str(value))
        if name and cleaned:
            params[_ALIASES.get(name, name)] = cleaned
    return params


def to_id(value: str) -> int:
    """A catalog id: 1 to 2^31 - 1; 0 for anything else."""
    return _to_id(value) if len(value) <= MAX_ID_DIGITS else 0


@lru_cache(65536)
def _to_id(value: str) -> int:
    if not value.isdigit() or not value.isascii():
        return 0
    number = int(value)
    return number if number <= MAX_INT4 else 0
