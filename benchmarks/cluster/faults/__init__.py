"""Two edges under load; every part is killed, cut off or lost, one after the other; in the end all that was answered is counted.

Read in this order: `plan` (which faults, and what each may cost), `run` (from the first process to the last count), then
the faults: `servers` (NATS, PostgreSQL), `processes` (edges, drains), `machines` (a disk, a rolling restart).
"""
