"""The report's form: what can be picked by whoever looks, what is picked, and what is wrong with it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import NamedTuple, get_args

from edge.admin.console.reports.urls import (
    DEFAULTS,
    PRESETS,
    SINGLE,
    Pairs,
    days_of,
    filters_of,
    names_of,
    preset_of,
    to_url,
)
from storage.postgres.reports.dimensions import DIMENSIONS, EXTRA, find_dimension
from storage.postgres.reports.metrics import CLICKS, DEFAULT_METRICS, METRICS, describe, header
from storage.postgres.reports.query import MAX_DIMENSIONS, Fault, Touch
from storage.postgres.reports.viewer import Viewer

MIN_PICKERS = 3
_UTM = tuple(f"utm_{name}" for name in ("source", "medium", "campaign", "content", "term"))
_SUBS = tuple(f"aff_sub{number}" for number in range(1, 6))
_DIMENSION_GROUPS = {
    "Time": ("date", "hour", "week", "month"),
    "Who and what": ("offer", "partner", "advertiser", "goal", "landing_page", "creative", "alias", "promo_code"),
    "Sub ids": ("source", *_SUBS),
    "UTM": _UTM,
    "Place and device": ("country", "region", "city", "device", "os", "browser", "language", "referrer_host"),
    "Other": ("contact", "list", "status", "currency"),
}
_METRIC_GROUPS = {
    "Traffic": ("impressions", "clicks", "gross_clicks", "unique_clicks", "invalid_clicks", "duplicate_clicks", "refused_clicks", "ctr"),
    "Conversions": ("conversions", "pending", "rejected", "reversed", "cr"),
    "Money": ("amount", "revenue", "payout", "cost", "profit", "net_profit"),
    "Ratios of money": ("margin", "roi", "roas", "epc", "rpc", "cpc", "rpa", "cpa", "aov", "rpm", "cpm"),
    "Sends": ("sends", "revenue_per_send", "cost_per_send"),
}  # fmt: skip
FAMILIES = (_UTM, _SUBS)
"""From one value of a family its other members are opened at once."""
TOUCHES = {
    "last": "last touch",
    "first": "first touch",
    "linear": "linear",
    "time_decay": "time decay",
    "position": "position",
}
CLICK_KINDS = {"valid": "valid", "gross": "gross", "unique": "unique"}
BY = {"conversion": "conversion date", "click": "click date"}
_FIELDS = frozenset(("dimensions", "metrics", "from", "to", "timezone", "by", "clicks", "touch", "compare"))


class Choice(NamedTuple):
    """Something to pick. `title`: what it means."""

    value: str
    label: str
    title: str = ""
    is_picked: bool = False


class Group(NamedTuple):
    """Choices under a heading."""

    label: str
    choices: list[Choice]


class Chip(NamedTuple):
    """A filter's value, shown with its name; `remove`: the report without it."""

    dimension: str
    label: str
    value: str
    name: str
    remove: str


class Form(NamedTuple):
    """`values`: of the single fields as they were sent; `faults`: by field; `strays`: those of no field that is shown."""

    summary: str
    pickers: list[list[Group]]
    metrics: list[Group]
    picked_metrics: list[str]
    values: Mapping[str, str]
    presets: list[Choice]
    chips: list[Chip]
    filters: list[Group]
    options: Mapping[str, list[Choice]]
    faults: Mapping[str, str]
    strays: list[Fault]


Known = Mapping[str, Mapping[str, str]]
"""Names by dimension and id, of what whoever looks may see."""


def make_form(pairs: Pairs, viewer: Viewer, today: date, known: Known, faults: Sequence[Fault] = ()) -> Form:
    """The form as it was sent, whatever is wrong with it."""
    dimensions = names_of(pairs, "dimensions")
    metrics = names_of(pairs, "metrics") or [one for one in DEFAULT_METRICS if viewer.scope in METRICS[one].scopes]
    values = dict.fromkeys(SINGLE, "") | DEFAULTS | {name: text for name, text in pairs if name in SINGLE}
    if not values["from"] and not values["to"]:
        values["from"], values["to"] = map(str, days_of("7d", today))  # what is meant where nobody says
    clicks = values["clicks"] if values["clicks"] in CLICKS else "valid"
    told: dict[str, str] = {}
    for fault in faults:
        told[fault.field] = f"{told[fault.field]}; {fault.text}" if fault.field in told else fault.text
    chips = list(_chips(pairs, known))
    shown = _FIELDS | {chip.dimension for chip in chips}
    return Form(
        summary=_summary(dimensions, chips, values),
        pickers=_pickers(dimensions, viewer),
        metrics=list(metric_groups(viewer, clicks, metrics)),
        picked_metrics=metrics,
        values=values,
        presets=[Choice(one, text, "", one == preset_of(pairs, today)) for one, text in PRESETS.items()],
        chips=chips,
        filters=dimension_groups(viewer),
        options=_options(viewer, values),
        faults=told,
        strays=[fault for fault in faults if fault.field not in shown],
    )


def dimension_groups(viewer: Viewer, picked: str = "", *, without: Iterable[str] = ()) -> list[Group]:
    """The dimensions that the viewer may see, by kind; one of an extra parameter only where it is picked."""
    left_out = set(without) - {picked}
    groups = [
        Group(label, [_dimension(name, picked) for name in names if name not in left_out and _may_see(name, viewer)])
        for label, names in _DIMENSION_GROUPS.items()
    ]
    if picked.startswith(EXTRA):
        groups.append(Group("Extra", [Choice(picked, picked, "", is_picked=True)]))
    return [group for group in groups if group.choices]


def metric_groups(viewer: Viewer, clicks: str, picked: Sequence[str] = ()) -> Iterable[Group]:
    """The metrics that the viewer may see, each with its formula."""
    for label, names in _METRIC_GROUPS.items():
        seen = [METRICS[name] for name in names if viewer.scope in METRICS[name].scopes]
        choices = [Choice(one.name, one.label, describe(one, viewer, clicks), one.name in picked) for one in seen]
        if choices:
            yield Group(label, choices)


def label_of_metric(name: str, clicks: str) -> str:
    """Its header, its own name where there is no such metric."""
    return header(METRICS[name], clicks) if name in METRICS else name


def _summary(dimensions: Sequence[str], chips: Sequence[Chip], values: Mapping[str, str]) -> str:
    """The form in a line, for where it is folded."""
    labels = [found.label if (found := find_dimension(name)) else name for name in dimensions]
    words = ["By " + ", ".join(labels) if labels else "Totals"]
    words += [f"{len(chips)} filter{'s' if len(chips) > 1 else ''}"] if chips else []
    return " \u00b7 ".join([*words, *(["compared"] if values["compare"] == "previous" else [])])


def _pickers(dimensions: Sequence[str], viewer: Viewer) -> list[list[Group]]:
    """One for each picked dimension in its place, and at least one that is free."""
    known = [name if (one := find_dimension(name)) and viewer.scope in one.scopes else "" for name in dimensions]
    count = min(max(len(known) + 1, MIN_PICKERS), MAX_DIMENSIONS)
    return [dimension_groups(viewer, name) for name in [*known, *[""] * (count - len(known))]]


def _options(viewer: Viewer, values: Mapping[str, str]) -> dict[str, list[Choice]]:
    touches = [one for one in get_args(Touch) if one == "last" or not viewer.own_rows]
    return {
        "by": [Choice(one, text, "", one == values["by"]) for one, text in BY.items()],
        "clicks": [Choice(one, text, "", one == values["clicks"]) for one, text in CLICK_KINDS.items()],
        "touch": [Choice(one, TOUCHES[one], "", one == values["touch"]) for one in touches],
    }


def _chips(pairs: Pairs, known: Known) -> Iterable[Chip]:
    for name, value in filters_of(pairs):
        found = find_dimension(name)
        rest = [pair for pair in pairs if pair != (name, value) and pair[0] != "cursor"]
        yield Chip(name, found.label if found else name, value, known.get(name, {}).get(value, ""), to_url(rest))


def _dimension(name: str, picked: str) -> Choice:
    return Choice(name, DIMENSIONS[name].label, DIMENSIONS[name].meaning, name == picked)


def _may_see(name: str, viewer: Viewer) -> bool:
    return viewer.scope in DIMENSIONS[name].scopes


