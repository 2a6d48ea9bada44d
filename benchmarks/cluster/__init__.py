"""Several machines on this one: three NATS servers, one PostgreSQL, two edges, two drains.

`python -m benchmarks.cluster` runs them to play with, `python -m benchmarks.cluster.faults` hurts them under load and
counts, `python -m benchmarks cluster` measures what each part costs. Read in this order: `database`, `programs` and
`parts` (what runs), `load` (the traffic to both edges), `reckoning` (what of it is stored).
"""
