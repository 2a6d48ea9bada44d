"""Whose key this is."""

from edge.admin.api.operation import EVERYBODY, Call, Caller, Operation


async def whoami(call: Call) -> Caller:
    """The caller, as the key says."""
    return call.caller


OPERATIONS = (
    Operation(
        "GET", "/whoami", "whoami", "Whose key this is, and what it may see", whoami, EVERYBODY, answer_type=Caller
    ),
)
