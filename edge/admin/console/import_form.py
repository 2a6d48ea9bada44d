"""What the form of an import says: which column is which field, and how dates, numbers and times are read."""

from collections.abc import Mapping
from typing import Any, get_args
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from edge.admin.import_queue import Order
from edge.imports.columns import VENDORS, fields_of
from edge.imports.values import Mark
from edge.tracking.parameters import clean

MAX_COLUMNS_SHOWN = 200
MAX_CHARS = 256
MAX_FEED_CHARS = 64
MAX_HOURS = 720
NONE, COLUMN = "-", "="
"""A field's choice: of no column; of the column with the header behind it. Nothing: as guessed."""


def read_order(order: Order, form: Mapping[str, Any]) -> tuple[Order, dict[str, str]]:
    """The order with what the form says, and what is wrong with that, by the form's field."""
    said = {name: clean(value).strip()[:MAX_CHARS] for name, value in form.items() if isinstance(value, str)}
    faults: dict[str, str] = {}
    mapped, constants = {}, {}
    for field in fields_of(order.kind):
        choice, always = said.get(f"map.{field}", ""), said.get(f"set.{field}", "")
        if always:
            constants[field] = always
        elif choice.startswith(COLUMN):
            mapped[field] = choice.removeprefix(COLUMN)
        elif choice == NONE:
            mapped[field] = ""
    vendor, decimal, hours = said.get("vendor", ""), said.get("decimal", ""), said.get("tolerance_hours", "24")
    zone, feed = said.get("timezone", ""), said.get("feed", "")
    if zone and not _is_zone(zone):
        faults["timezone"] = "is no IANA time zone such as Europe/Berlin"
    if not (hours.isascii() and hours.isdigit() and len(hours) < 4 and int(hours) <= MAX_HOURS):
        faults["tolerance_hours"] = f"allowed: 0 to {MAX_HOURS}"
    if len(feed) > MAX_FEED_CHARS:
        faults["feed"] = f"allowed: up to {MAX_FEED_CHARS} characters"
    changed = replace(
        order,
        vendor=next((one for one in VENDORS if one == vendor), None),
        mapped=mapped,
        constants=constants,
        timezone="" if "timezone" in faults else zone,
        date_format=said.get("date_format", ""),
        decimal=decimal if decimal in get_args(Mark) else "",
        update="update" in said,
        postbacks="postbacks" in said,
        tolerance_s=order.tolerance_s if "tolerance_hours" in faults else int(hours) * 3600,
        feed=feed[:MAX_FEED_CHARS],
    )
    return changed, faults


def shown_columns(header: list[str]) -> list[str]:
    """The headers to choose from, each once."""
    return [name for name in dict.fromkeys(header) if name][:MAX_COLUMNS_SHOWN]


def _is_zone(name: str) -> bool:
    try:
        return bool(ZoneInfo(name).key)
    except (OSError, LookupError, ValueError):
        return False
