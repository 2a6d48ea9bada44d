"""Which contacts stand behind a figure: those that the rows which make it name."""

from collections.abc import Iterable, Sequence

from storage.postgres.listing import conversions, touches
from storage.postgres.listing.drill import LISTABLE, Drill, Kind, where
from storage.postgres.reports.statement import Arguments


def kinds_of(metric: str) -> list[Kind]:
    """The kinds of rows that add up to the metric; those of a ratio are none."""
    return [kind for kind, metrics in LISTABLE.items() if metric in metrics]


def contacts_behind(drill: Drill, kinds: Iterable[Kind], arguments: Arguments) -> str:
    """A query of their ids; its values are in `arguments`."""
    return " UNION ".join(_of_kind(drill, kind, arguments) for kind in kinds)


def _of_kind(drill: Drill, kind: Kind, arguments: Arguments) -> str:
    if kind == "conversions":
        found = where(drill, conversions.source_of(drill), arguments)
        # A conversion's own name is the same in all of its changes and touches.
        return (
            f"SELECT min(conversion.contact_id) FROM {found.tables} WHERE {found.condition}"
            f"{conversions.grouping(drill, found) or ' GROUP BY conversion.conversion_id'}"
        )
    found = where(drill, touches.source_of(kind, drill), arguments)
    conditions: Sequence[str] = (found.condition, touches.condition_of(drill))
    return f"SELECT touch.contact_id FROM {found.tables} WHERE {' AND '.join(conditions)}"
