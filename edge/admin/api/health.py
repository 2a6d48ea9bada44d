"""How the installation is."""

from edge.admin.api.operation import READERS, Call, Operation
from edge.admin.health import Health, check_health


async def health(call: Call) -> Health:
    """Processes, lags, what waits and what was given up."""
    return await check_health(call.backend)


OPERATIONS = (
    Operation("GET", "/health", "health", "Processes, lags, backlogs, room", health, READERS, answer_type=Health),
)
