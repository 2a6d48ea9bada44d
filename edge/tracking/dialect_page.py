"""The mechanical part of docs/dialects.md: what each vendor's table says. A test keeps the page equal to it."""

import re
from collections.abc import Iterator, Mapping

import orjson

from edge.tracking.dialects import KINDS
from edge.tracking.vendors import VENDORS
from edge.tracking.vendors.row import WHOLE, Reply, Row, Sent, Statuses, Vendor

_NUMBERED = re.compile(r"(.+?)([0-9]+)\Z")


def as_markdown() -> str:
    """A section per vendor, in the order in which the tables are asked."""
    return "\n".join(line for vendor in VENDORS for line in _vendor(vendor))


def _vendor(vendor: Vendor) -> Iterator[str]:
    yield f"### {vendor.title}"
    yield ""
    yield "| row | path | told by | is a | methods |"
    yield "|---|---|---|---|---|"
    facts: dict[str, list[str]] = {}
    for number, row in enumerate(vendor.rows, 1):
        methods = " ".join(sorted(row.methods or KINDS[row.kind].methods))
        kind = row.kind.replace("_", " ")
        yield f"| {number} | `{row.path}` | {' '.join(map(_code, row.tells))} | {kind} | {methods} |"
        for fact in _facts(row):
            facts.setdefault(fact, []).append(str(number))
    yield ""
    for fact, numbers in facts.items():
        yield f"* {', '.join(numbers)}: {fact}"
    if facts:
        yield ""


def _facts(row: Row) -> Iterator[str]:
    if row.names:
        yield _names(row.names)
    if row.statuses:
        yield _statuses(row.statuses)
    if row.aliases:
        yield _aliases(row.aliases)
    if row.goals:
        yield f"the first of {_code(row.goals[0])} to {_code(row.goals[-1])} that is sent names the goal"
    if row.defaults:
        yield f"{', '.join(f'{_code(name)} is {_code(value)}' for name, value in row.defaults.items())} unless sent"
    if row.is_minor:
        yield "`amount` is in the currency's smallest unit"
    if row.items:
        price, quantity = _code(f"{row.items.price}1"), _code(f"{row.items.quantity}1")
        yield f"without an amount it is the sum of {price} times {quantity} and so on, less {_code(row.items.discount)}"
    if row.authorization:
        yield f"`Authorization: {row.authorization.title()}` carries the `security_token`"
    if row.must_resolve:
        yield "not found unless the offer is known"
    if row.reply:
        yield _reply(row.reply)


def _names(names: Mapping[str, str]) -> str:
    shown: dict[str, str] = {}
    for name, ours in names.items():
        theirs, mine = _NUMBERED.match(name), _NUMBERED.match(ours)
        if theirs and mine and theirs[2] == mine[2]:
            last = max(int(found[2]) for one in names if (found := _NUMBERED.match(one)) and found[1] == theirs[1])
            shown[f"`{theirs[1]}1`…`{last}`"] = f"`{mine[1]}1`…`{last}`"
        else:
            shown[_code(name)] = " and ".join(map(_code, ours.split())) or "not kept"
    return ", ".join(f"{name} → {ours}" for name, ours in shown.items())


def _statuses(statuses: Statuses) -> str:
    words = ", ".join(f"{_code(word)} → {_code(ours)}" for word, ours in statuses.words.items())
    text = f"{_code(statuses.name)}: {words}"
    if statuses.lists:
        text += f"; words of one's own in {', '.join(map(_code, statuses.lists))}"
    if statuses.ignored_by:
        text += f"; those in {', '.join(map(_code, statuses.ignored_by))} are answered and forgotten"
    return text


def _aliases(aliases: Mapping[str, str]) -> str:
    whole = [_code(name) for name, wanted in aliases.items() if wanted == WHOLE]
    parts = [f"{_code(name)} for its {_code(wanted)}" for name, wanted in aliases.items() if wanted != WHOLE]
    return f"may name an alias of the catalog: {', '.join([*whole, *parts])}"


def _reply(reply: Reply) -> str:
    status = "" if reply.success_status == 200 else f"{reply.success_status} "
    text = f"answers {status}{_body(reply.success)}, refuses with {reply.failure_status} {_body(reply.failure)}"
    if reply.said_by:
        text += f"; {_code(reply.said_by)} gives the text of success"
    return text + (f" ({reply.assumed} assumed)" if reply.assumed else "")


def _body(body: object) -> str:
    if isinstance(body, str):
        return _code(body)
    return _code(orjson.dumps(body, default=_place).decode().replace('"<', "<").replace('>"', ">"))


def _place(value: object) -> str:
    if isinstance(value, Sent):
        return f"<{value.name}>"
    raise TypeError


def _code(text: str) -> str:
    return f"`{text}`"
