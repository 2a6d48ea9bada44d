"""A catalog file in the making: items as the file will name them, and notes of what could not be carried over.

The text is read back by the catalog's own reader. What that refuses is taken out and noted, so that what is left applies.
"""

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

import tomli_w

from edge.imports.goal_terms import keep_goal_terms
from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import TABLES
from edge.tracking.catalog_fields import MAX_TEXT_CHARS
from edge.tracking.catalog_file import CatalogFaults, read_catalog
from edge.tracking.catalog_references import Fault
from edge.tracking.parameters import clean

MAX_NOTE_CHARS = 300
MAX_ROUNDS = 20
REQUIRED = {"advertisers": {"id", "name"}, "partners": {"id", "name"}, "offers": {"id", "name", "url", "advertiser_id"}}
_PLACE = re.compile(r"(?P<kind>\w+)\[(?P<id>\d+)\](\.(?P<field>\w+)(\[(?P<label>[^\]]+)\])?(\.(?P<inner>\w+))?)?.*")
_SECRET = re.compile(r"token|secret|password|api_key", re.IGNORECASE)
_AMOUNT = re.compile(r"[$€£]?(?P<digits>[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?|[0-9]+(\.[0-9]*)?|\.[0-9]+)( ?%| [A-Z]{3})?")
_SIX_PLACES = Decimal("0.000001")


class Item:
    """One advertiser, partner or offer."""

    def __init__(self, kind: str, item_id: int, name: str) -> None:
        self.kind = kind
        self.id = item_id
        self.fields: dict[str, Any] = {"id": item_id, "name": cut(name)}
        self.notes: list[str] = []
        self.why_left_out = ""

    def put(self, field: str, value: Any) -> None:
        """Set a field to what the export says; nothing for what it does not."""
        if value not in ("", None, [], {}):
            self.fields[field] = value

    def note(self, text: str) -> None:
        """Say something above the item."""
        if text not in self.notes:
            self.notes.append(text)

    def note_left(self, left: Iterator[tuple[str, str]]) -> None:
        """Say which fields have no counterpart; no secret is shown."""
        for name, value in left:
            self.note(f"not carried over: {name} = {'…' if _SECRET.search(name) else value}")

    def add(self, table: str, row: dict[str, Any]) -> None:
        """One more row of an inner table."""
        self.fields.setdefault(table, []).append(row)


class Draft:
    """Everything of one export."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.remarks: list[str] = []
        self._items: dict[str, dict[int, Item]] = {kind: {} for kind in TABLES}

    def item(self, kind: str, item_id: int, name: str) -> Item:
        """A new item."""
        item = self._items[kind][item_id] = Item(kind, item_id, name)
        return item

    def find(self, kind: str, item_id: int) -> Item | None:
        """An item made before."""
        return self._items[kind].get(item_id)

    def items(self, kind: str) -> list[Item]:
        """Those that stay, by id."""
        return [item for _, item in sorted(self._items[kind].items()) if not item.why_left_out]

    def left_out(self) -> list[Item]:
        """Those that cannot be carried over, by table and id."""
        return [item for kind in TABLES for _, item in sorted(self._items[kind].items()) if item.why_left_out]

    def remark(self, text: str) -> None:
        """Say something at the top of the file."""
        if text not in self.remarks:
            self.remarks.append(text)

    def count_notes(self) -> int:
        """Notes and remarks."""
        return len(self.remarks) + sum(len(item.notes) for kind in TABLES for item in self.items(kind))

    def finish(self) -> str:
        """The file's text, which the catalog's reader takes without a fault."""
        self._complete_advertisers()
        partners = {item.id for item in self.items("partners")}
        for offer in self.items("offers"):
            if keep_goal_terms(offer.fields, partners):
                offer.note("overrides without goal_id count for goals too, unless one for the goal says otherwise: as these do")
        for _ in range(MAX_ROUNDS):
            text = self._render()
            try:
                read_catalog(text, "draft", Catalog.empty())
            except CatalogFaults as refused:
                for fault in refused.faults:
                    self._mend(fault)
            else:
                break
        return text

    def _complete_advertisers(self) -> None:
        """Every offer needs one: those that the export does not have are made up."""
        for offer in self.items("offers"):
            advertiser_id = offer.fields.get("advertiser_id", 0)
            if not advertiser_id:
                advertiser_id = offer.fields["advertiser_id"] = self._nobody()
                offer.note("it had no advertiser")
            if self.find("advertisers", advertiser_id) is None:
                made_up = self.item("advertisers", advertiser_id, f"Advertiser {advertiser_id}")
                made_up.note("not in the export: made up, because offers name it")

    def _nobody(self) -> int:
        for item in self.items("advertisers"):
            if item.fields["name"] == "No advertiser":
                return item.id
        nobody = 1 + max((item.id for item in self.items("advertisers")), default=0)
        self.item("advertisers", nobody, "No advertiser").note("made up, for offers without one")
        return nobody

    def _mend(self, fault: Fault) -> None:
        place = _PLACE.fullmatch(fault.where)
        item = self._items.get(place["kind"], {}).get(int(place["id"])) if place else None
        if place is None or item is None:
            self.remark(f"{fault.where}: {fault.problem}")
            return
        field, label = place["field"], place["label"]
        if not field or field in REQUIRED.get(item.kind, ()):
            item.why_left_out = f"{field or 'it'}: {fault.problem}"
        elif label:
            self._take_out_row(item, field, label, place["inner"] or "", fault.problem)
        elif field in item.fields:
            value = item.fields.pop(field)
            item.note(f"not carried over: {field} = {'…' if _SECRET.search(field) else value}: {fault.problem}")

    def _take_out_row(self, item: Item, table: str, label: str, field: str, problem: str) -> None:
        rows = item.fields.get(table, [])
        faulty = [row for row in rows if str(next(iter(row.values()))) == label]
        for row in faulty:
            rows.remove(row)
            item.note(f"not carried over: {table} {inline(row)}: {field} {problem}")
        if not rows:
            item.fields.pop(table, None)

    def _render(self) -> str:
        lines = [_comment(line) for line in (self.title, *self.remarks)]
        for kind in TABLES:
            for item in self.items(kind):
                lines += ["", *map(_comment, item.notes), _toml(kind, item.fields)]
        for item in self.left_out():
            lines += ["", _comment(f"LEFT OUT: {item.kind}[{item.id}] {item.fields['name']}: {item.why_left_out}")]
            lines += [_comment(f"  {name} = {_masked(name, value)}") for name, value in item.fields.items()]
            lines += [_comment(f"  {note}") for note in item.notes]
        return "\n".join(lines) + "\n"


def _toml(kind: str, fields: dict[str, Any]) -> str:
    """The item as `[[kind]]` and what follows."""
    # A list of short tables would be written on one line: the long one behind it, cut off again, prevents that.
    text = tomli_w.dumps({kind: [fields, {"x": "x" * 200}]})
    return text.rpartition(f"[[{kind}]]")[0].rstrip("\n")


def money(text: str) -> str:
    """An amount or percentage as the catalog writes it; "" where there is none, or it cannot be read."""
    found = _AMOUNT.fullmatch(text.strip())
    if not found:
        return ""
    try:
        amount = Decimal(found["digits"].replace(",", "")).quantize(_SIX_PLACES).normalize()
    except InvalidOperation:
        return ""
    shown = f"{amount:f}"
    return shown if "." in shown and len(shown.partition(".")[2]) > 1 else f"{amount:.2f}"


def more_than_zero(text: str) -> str:
    """The same; "" for zero too."""
    found = money(text)
    return found if found.strip("0.") else ""


def cut(name: str) -> str:
    """The name as a catalog may have it."""
    return clean(name).strip()[:MAX_TEXT_CHARS]


def unique_name(name: str, taken: set[str], number: int) -> str:
    """The name, with its number where another has it already."""
    name = cut(name) or str(number)
    if name in taken:
        name = f"{name[: MAX_TEXT_CHARS - 12]} ({number})"
    taken.add(name)
    return name


def _masked(name: str, value: Any) -> str:
    return "…" if _SECRET.search(name) else str(value)


def inline(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in row.items())


def _comment(text: str) -> str:
    text = clean(text)
    return f"# {text if len(text) <= MAX_NOTE_CHARS else text[:MAX_NOTE_CHARS] + '…'}".rstrip()
