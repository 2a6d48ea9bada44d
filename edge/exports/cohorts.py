"""Cohorts as CSV."""

import csv
import io
from collections.abc import Iterable

from edge.exports.cells import defuse
from storage.postgres.cohorts import Cohort, Window


def to_csv(cohorts: Iterable[Cohort]) -> str:
    """A line a cohort, currency and window."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["cohort", "contacts", "currency", *Window.__struct_fields__])
    for one in cohorts:
        for window in one.windows:
            complete = "true" if window.is_complete else "false"
            money = (f"{window.revenue:f}", f"{window.revenue_per_contact:f}")
            counts = (window.converting, window.conversions)
            writer.writerow([one.starts_on, one.contacts, defuse(one.currency), window.days, complete, *counts, *money])
    return text.getvalue()
