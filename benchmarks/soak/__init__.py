"""A node under mixed load for half an hour, with a fault every minute; in the end all that was answered is counted.

    python -m benchmarks.soak --minutes 5

Read in this order: `plan` (which faults, and what each may cost), `run` (one soak from start to end), `traffic` and
`locustfile` (the load), `ledger` (what it wrote down), `reckoning` (the ledger against PostgreSQL), `figures` and
`report` (what is said of it).
"""
