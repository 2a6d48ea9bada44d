"""The API: each module has the operations of one subject; here is the list of them all."""

from collections.abc import Sequence

from edge.admin.api import (
    audit,
    catalog,
    contacts,
    costs,
    decisions,
    erasures,
    exports,
    health,
    imports,
    keys,
    live,
    months,
    parts,
    postbacks,
    reports,
    rows,
    statements,
    stories,
    whoami,
)
from edge.admin.api.operation import Operation

OPERATIONS: Sequence[Operation] = (
    *whoami.OPERATIONS,
    *reports.OPERATIONS,
    *audit.OPERATIONS,
    *catalog.OPERATIONS,
    *contacts.OPERATIONS,
    *costs.OPERATIONS,
    *decisions.OPERATIONS,
    *erasures.OPERATIONS,
    *exports.OPERATIONS,
    *health.OPERATIONS,
    *imports.OPERATIONS,
    *keys.OPERATIONS,
    *live.OPERATIONS,
    *months.OPERATIONS,
    *parts.OPERATIONS,
    *postbacks.OPERATIONS,
    *rows.OPERATIONS,
    *statements.OPERATIONS,
    *stories.OPERATIONS,
)
