"""The API: each module has the operations of one subject; here is the list of them all."""

from collections.abc import Sequence

from edge.admin.api import catalog, contacts, costs, exports, keys, parts, reports, rows, statements, whoami
from edge.admin.api.operation import Operation

OPERATIONS: Sequence[Operation] = (
    *whoami.OPERATIONS,
    *reports.OPERATIONS,
    *catalog.OPERATIONS,
    *contacts.OPERATIONS,
    *costs.OPERATIONS,
    *exports.OPERATIONS,
    *keys.OPERATIONS,
    *parts.OPERATIONS,
    *rows.OPERATIONS,
    *statements.OPERATIONS,
)
