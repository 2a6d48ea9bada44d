"""A report's URL: the API's own parameters, and what the form's fields become in it. Pure.

The form has fields that the API does not: `period` (a preset, in place of dates), `filter_by` and `filter_value` (one more
filter), and one field for each dimension and metric. `canonical` makes the API's parameters of them: that is the URL to share.
"""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from urllib.parse import urlencode

Pairs = list[tuple[str, str]]
LISTS = ("dimensions", "metrics")
SINGLE = ("from", "to", "timezone", "by", "clicks", "touch", "compare", "sort", "limit", "cursor")
DEFAULTS = {"by": "conversion", "clicks": "valid", "touch": "last", "compare": "none"}
_ORDER = {name: place for place, name in enumerate((*LISTS, *SINGLE, "", "metric", "format", "for_spreadsheets"))}
"""Filters stand at "", in the order in which they were added."""
OF_THE_FORM = frozenset(("period", "filter_by", "filter_value"))
PRESETS = {
    "today": "Today",
    "yesterday": "Yesterday",
    "7d": "7 days",
    "30d": "30 days",
    "month": "This month",
    "last_month": "Last month",
}


def canonical(given: Iterable[tuple[str, str]], today: date) -> Pairs:
    """The API's parameters in a fixed order, without those that say what is meant anyway."""
    pairs = list(given)
    preset = next((value for name, value in pairs if name == "period" and value in PRESETS), "")
    if preset:
        pairs = [pair for pair in pairs if pair[0] not in ("from", "to")]
        pairs += zip(("from", "to"), map(str, days_of(preset, today)), strict=True)
    pairs += _added_filter(pairs)
    found = [(name, ",".join(_names(pairs, name))) for name in LISTS]
    found += [(name, value.strip()) for name in SINGLE for said, value in pairs if said == name]
    kept = [(name, value) for name, value in found if value and DEFAULTS.get(name) != value]
    filters = [pair for pair in pairs if not {pair[0]} & {*LISTS, *SINGLE, *OF_THE_FORM}]
    return list(dict.fromkeys([*kept, *filters]))


def to_url(pairs: Sequence[tuple[str, str]], path: str = "/reports") -> str:
    """The address of the report, or of something else with its parameters, in their fixed order."""
    ordered = sorted(pairs, key=lambda pair: _ORDER.get(pair[0], _ORDER[""]))
    return f"{path}?{urlencode(ordered, safe=',:')}" if pairs else path


def days_of(preset: str, today: date) -> tuple[date, date]:
    """The first and the last day of a preset."""
    first_of_month = today.replace(day=1)
    last_month = first_of_month - timedelta(days=1)
    return {
        "today": (today, today),
        "yesterday": (today - timedelta(days=1),) * 2,
        "7d": (today - timedelta(days=6), today),
        "30d": (today - timedelta(days=29), today),
        "month": (first_of_month, today),
        "last_month": (last_month.replace(day=1), last_month),
    }[preset]


def preset_of(pairs: Sequence[tuple[str, str]], today: date) -> str:
    """The preset that has these dates; "" for none. No dates are the last seven days."""
    said = dict(pairs)
    if "from" not in said and "to" not in said:
        return "7d"
    dates = (said.get("from"), said.get("to"))
    return next((name for name in PRESETS if tuple(map(str, days_of(name, today))) == dates), "")


def replaced(pairs: Sequence[tuple[str, str]], **values: str) -> Pairs:
    """With these values in place of what they were, "" for none; `from_` is `from`. Another report begins on its first page."""
    new = {name.rstrip("_"): value for name, value in values.items()}
    kept = [pair for pair in pairs if pair[0] not in new and pair[0] != "cursor"]
    return [*kept, *((name, value) for name, value in new.items() if value)]


def with_filters(pairs: Sequence[tuple[str, str]], filters: Iterable[tuple[str, str]]) -> Pairs:
    """Only those rows that have these values; each is in place of other filters on its dimension."""
    new = list(filters)
    names = {name for name, _ in new}
    return [*(pair for pair in pairs if pair[0] not in names and pair[0] != "cursor"), *new]


def without(pairs: Sequence[tuple[str, str]], *names: str) -> Pairs:
    """Without parameters of these names."""
    return [pair for pair in pairs if pair[0] not in names]


def filters_of(pairs: Sequence[tuple[str, str]]) -> Pairs:
    """The parameters that are filters."""
    return without(pairs, *LISTS, *SINGLE, "metric", *OF_THE_FORM)


def names_of(pairs: Sequence[tuple[str, str]], parameter: str) -> list[str]:
    """The names in a list such as `dimensions`."""
    return list(_names(pairs, parameter))


def _names(pairs: Iterable[tuple[str, str]], parameter: str) -> Iterable[str]:
    names = (name.strip() for said, text in pairs if said == parameter for name in text.split(","))
    return dict.fromkeys(name for name in names if name)


def _added_filter(pairs: Pairs) -> Pairs:
    said = dict(pairs)
    if not said.get("filter_by"):
        return []
    return [(said["filter_by"], said.get("filter_value", "").strip())]
