"""A query string or form into parameters: `+` and `%20` are spaces, control bytes go, bad UTF-8 becomes U+FFFD.

An empty value means absent; of a repeated parameter the last one that says something counts (a partner appends to a
link that already has the parameter). Nothing here raises on any input.
"""

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

MAX_PARAMETERS = 100
MAX_NAME_CHARS = 64
MAX_INT4 = 2**31 - 1
MAX_ID_DIGITS = 10
MAX_KNOWN_CHARS = 512
"""Of a query longer than this no pair is remembered, so that the memory stays small."""

# C0, DEL, C1 and the two separators that Python's and browsers' line splitting know.
_CONTROL = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029])
_find_stray_percent = re.compile(r"%(?![0-9A-Fa-f]{2})").search
_ENCODED_BYTES = re.compile(rb"(?:%[0-9A-Fa-f]{2})+")
_find_part_name = re.compile(rb'form-data;\s*name="?([^";\r\n]+)', re.IGNORECASE).search
_ALIASES = {"aff_sub": "aff_sub1", "adv_sub": "adv_sub1"}


def clean(value: str) -> str:
    """`value` without control characters and without lone surrogates."""
    if value.isprintable():
        return value
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").translate(_CONTROL)


def parse_query(query: str) -> dict[str, str]:
    """The parameters of a raw query string, one name for what has several; at most 100."""
    try:
        return parse_clean_query(query)
    except ValueError:
        return parse_clean_query(clean(query))


def parse_clean_query(query: str) -> dict[str, str]:
    """The same; ValueError for a character that `clean` would take away: no server may take it in a request's line."""
    read = _read_pair if len(query) <= MAX_KNOWN_CHARS else _read_pair.__wrapped__
    pairs = query.split("&", MAX_PARAMETERS)
    if len(pairs) > MAX_PARAMETERS and clean(beyond := pairs.pop()) != beyond:
        raise ValueError("a control character or half a surrogate pair")
    params: dict[str, str] = {}
    for pair in pairs:
        name, value = read(pair)
        if value:
            params[name] = value
    return params


# Campaigns send most of their pairs again and again: a known one costs a third of what it takes to read it.
@lru_cache(4096)
def _read_pair(pair: str) -> tuple[str, str]:
    """Name and value; no value where there is no name."""
    if clean(pair) != pair:
        raise ValueError("a control character or half a surrogate pair")
    name, _, value = pair.partition("=")
    if "%" in pair or "+" in pair:
        name, value = _decode(name), _decode(value)
    return (_ALIASES.get(name) or name[:MAX_NAME_CHARS], value) if name else ("", "")


def _decode(part: str) -> str:
    if "+" in part:
        part = part.replace("+", " ")
    if "%" not in part:
        return part
    # The library's takes 0.3 us for each `%` that encodes nothing: 27 ms for a body of them (2 shared cores, 2026-11-22).
    raw = _unquote_runs(part.encode()) if _find_stray_percent(part) else unquote_to_bytes(part)
    return clean(raw.decode("utf-8", "replace"))


def _unquote_runs(part: bytes) -> bytes:
    return _ENCODED_BYTES.sub(lambda run: bytes.fromhex(run[0].replace(b"%", b"").decode()), part)


def split_form(body: str) -> list[tuple[str, object]]:
    """A form's fields as they were sent, decoded; those without a value are left out. ValueError for more than 100."""
    pairs = body.split("&", MAX_PARAMETERS)
    if len(pairs) > MAX_PARAMETERS:
        raise ValueError("too many fields")
    named = (pair.partition("=") for pair in pairs)
    return [(_decode(name), _decode(value)) for name, _, value in named if value]


def split_parts(body: bytes, boundary: str) -> list[tuple[str, object]]:
    """The fields of a form that comes in parts (RFC 7578), without its files. ValueError for more than 100, and for none."""
    parts = body.split(b"--" + boundary.encode(), MAX_PARAMETERS + 2) if boundary else []
    if not 1 < len(parts) <= MAX_PARAMETERS + 2:
        raise ValueError("too many parts, or none")
    fields: list[tuple[str, object]] = []
    for one in parts[1:]:
        head, _, value = one.partition(b"\r\n\r\n")
        name = _find_part_name(head)
        if name and b"filename=" not in head and b"filename*=" not in head:
            fields.append((name[1].decode("utf-8", "replace"), value.removesuffix(b"\r\n").decode("utf-8", "replace")))
    return fields


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
