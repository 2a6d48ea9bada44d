"""The API: each module has the operations of one subject; here is the list of them all."""

from collections.abc import Sequence

from edge.admin.api import catalog, costs, keys, parts, whoami
from edge.admin.api.operation import Operation

OPERATIONS: Sequence[Operation] = (
    *whoami.OPERATIONS,
    *catalog.OPERATIONS,
    *parts.OPERATIONS,
    *costs.OPERATIONS,
    *keys.OPERATIONS,
)
