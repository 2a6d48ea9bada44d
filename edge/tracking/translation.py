"""A request in a vendor's words into one in ours: what its row says, and nothing else."""

from base64 import b64decode
from collections.abc import Mapping
from typing import NamedTuple

from msgspec.structs import replace

from edge.tracking.catalog import Catalog
from edge.tracking.item_amounts import total
from edge.tracking.minor_units import to_decimal
from edge.tracking.request import Request
from edge.tracking.vendors.row import WHOLE, Row, Statuses

MAX_WORDS_CHARS = 1024
MAX_COPY_CHARS = 1024
"""Of a value with two names of ours the second gets no more, so that an event has room for all that a body may hold."""


class Translated(NamedTuple):
    """`request` in our words; `sent`: theirs, the path's included; `alias`: the one that was used, if any."""

    request: Request
    sent: dict[str, str]
    alias: str
    is_ignored: bool
    """The sender asks to forget requests of this status."""


def translate(vendor: str, row: Row, request: Request, in_path: Mapping[str, str], catalog: Catalog) -> Translated:
    """Never fails: what the row does not name stays under the name that it came with."""
    sent = {**request.params, **in_path}
    params = {"dialect": vendor, **_rename(sent, row.names)}
    params["dialect"] = vendor
    is_ignored = row.statuses is not None and _read_status(params, sent, row.statuses)
    goal = next((name for name in row.goals if name in sent), "")
    if goal:
        params["goal_name"] = goal
    alias = _take_aliases(params, sent, row.aliases, catalog)
    if row.items is not None and "amount" not in params:
        amount = total(sent, row.items)
        if amount:
            params["amount"] = amount
    for name, value in row.defaults.items():
        params.setdefault(name, value)
    if row.is_minor and "amount" in params:
        params["amount"] = to_decimal(params["amount"], params.get("currency", ""))
    token = _token(request.headers.authorization, row.authorization) if row.authorization else ""
    if token:
        params["security_token"] = token
    return Translated(replace(request, params=params), sent, alias, is_ignored)


def _rename(sent: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    params = {name: value for name, value in sent.items() if name not in names}
    taken: set[str] = set()
    for name, ours in names.items():
        value = sent.get(name)
        if value:
            for one in ours.split():
                if one not in taken:
                    params[one] = value
                    taken.add(one)
                    value = value[:MAX_COPY_CHARS]
    return params


def _read_status(params: dict[str, str], sent: Mapping[str, str], statuses: Statuses) -> bool:
    """Put our word in the place of theirs, which is kept; True: the request is to be forgotten."""
    original = sent.get(statuses.name, "")
    params.pop(statuses.name, None)
    params.pop("status", None)
    if not original:
        return False
    params["original_status"] = original
    word = original.lower()
    if any(word in _words(sent.get(name, "")) for name in statuses.ignored_by):
        return True
    word = next((ours for name, ours in statuses.lists.items() if word in _words(sent.get(name, ""))), word)
    ours = statuses.words.get(word)
    if ours:
        params["status"] = ours
    return False


def _words(text: str) -> list[str]:
    return [word.strip() for word in text[:MAX_WORDS_CHARS].lower().split(",")] if text else []


def _take_aliases(params: dict[str, str], sent: Mapping[str, str], names: Mapping[str, str], catalog: Catalog) -> str:
    """Merge the frozen parameters of the aliases that are named, the first one's last; the one that was taken whole."""
    taken = ""
    for name, wanted in reversed(list(names.items())):
        path = sent.get(name, "")
        view = catalog.alias(path) if path else None
        if view is None:
            continue
        if wanted == WHOLE:
            params.update(view.params)
            taken = path
        elif wanted in view.params:
            params[wanted] = view.params[wanted]
    return taken


def _token(authorization: str, scheme: str) -> str:
    """The bearer's token, or the password of HTTP's basic scheme; "" for anything else."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() != scheme:
        return ""
    if scheme == "bearer":
        return value.strip()
    try:
        return b64decode(value.strip(), validate=True).decode().partition(":")[2]
    except ValueError:  # binascii's and Unicode's own are both of this kind
        return ""
