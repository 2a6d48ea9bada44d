"""How much of the fault tests' long forms is run: FAULT_SCALE=10 make faults has a wire cut a thousand times, and ten minutes without Postgres."""

import os

SCALE = int(os.environ.get("FAULT_SCALE", "1"))
