"""Reports: figures over clicks, impressions, conversions and costs, by any dimensions, from the cheapest rows that know them.

`query.py` reads what is asked, `sources.py` names the rows that can answer, `planner.py` chooses among them,
`statement.py` writes the SQL, `report.py` runs it. The tables of `dimensions.py` and `metrics.py` are what everybody shares.
"""
