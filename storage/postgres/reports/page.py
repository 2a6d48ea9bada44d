"""The tables of dimensions and metrics in Markdown, for docs/reports.md and whoever shows help."""

from collections.abc import Iterable, Sequence

from storage.postgres.reports.dimensions import DIMENSIONS, EXTRA, FIRST_TOUCH
from storage.postgres.reports.metrics import METRICS
from storage.postgres.reports.viewer import Scope


def dimensions_table() -> str:
    """Name, meaning, and which are read from the first touch with `touch=first`."""
    rows = [
        (f"`{one.name}`", one.meaning, "first touch" if one.name in FIRST_TOUCH else "") for one in DIMENSIONS.values()
    ]
    rows.append((f"`{EXTRA}<name>`", "a parameter of the click, else of the conversion, that has no column", ""))
    return _table(("dimension", "what it is", "`touch=first`"), rows)


def metrics_table() -> str:
    """Name, header, formula, and who sees it."""
    rows = [
        (f"`{one.name}`", one.label, one.formula, _unit(one.unit), _seen_by(one.scopes)) for one in METRICS.values()
    ]
    return _table(("metric", "header", "formula", "unit", "seen by"), rows)


def _unit(unit: str) -> str:
    return {"percent": "%", "ratio": "", "count": "number"}.get(unit, unit)


def _seen_by(scopes: Sequence[Scope]) -> str:
    others = [f"{one}s" for one in ("advertiser", "partner") if one in scopes]
    return "all" if len(others) == 2 else ", ".join(["network", *others])


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
