"""Are the clicks flagged `duplicate` those that should be? Asked of the rows alone, in whatever order they were stored.

A click touches another of the same node, offer and partner if both have the same visitor, or one came with the cookie
that the other set. Of clicks that touch within the window one is unique at most; a duplicate touches another.
"""

from datetime import timedelta
from typing import Any

_VALID = "NOT flags && '{bot,prefetch,datacentre}'"
_WITH = f"""
    WITH valid AS MATERIALIZED (
        SELECT click_id, clicked_at, node_id, offer_id, aff_id, visitor, 'duplicate' = ANY (flags) AS is_duplicate
        FROM clicks WHERE {_VALID}
    ), spaced AS (
        SELECT *, clicked_at - lag(clicked_at) OVER same AS since, lead(clicked_at) OVER same - clicked_at AS until
        FROM valid WINDOW same AS (PARTITION BY node_id, offer_id, aff_id, visitor ORDER BY click_id)
    ), followed AS MATERIALIZED (
        SELECT first.click_id AS first_id, later.click_id AS later_id,
               first.is_duplicate AS is_first_duplicate, later.is_duplicate AS is_later_duplicate
        FROM valid AS first JOIN valid AS later ON later.visitor = first.click_id AND later.node_id = first.node_id
             AND later.offer_id = first.offer_id AND later.aff_id = first.aff_id
        WHERE later.clicked_at - first.clicked_at BETWEEN -$1::interval AND $1::interval
    )"""
_CHECKS = {
    "unique within the window of another": """
        SELECT click_id FROM (
            SELECT click_id, clicked_at - lag(clicked_at) OVER same AS since FROM valid WHERE NOT is_duplicate
            WINDOW same AS (PARTITION BY node_id, offer_id, aff_id, visitor ORDER BY click_id)
        ) AS uniques WHERE since <= $1::interval
        UNION ALL SELECT later_id FROM followed WHERE NOT is_first_duplicate AND NOT is_later_duplicate""",
    "a duplicate of nothing": """
        SELECT click_id FROM spaced WHERE is_duplicate
            AND coalesce(since > $1::interval, true) AND coalesce(until > $1::interval, true)
        EXCEPT SELECT first_id FROM followed EXCEPT SELECT later_id FROM followed""",
    "a duplicate and not valid": f"""
        SELECT click_id FROM clicks WHERE NOT ({_VALID}) AND 'duplicate' = ANY (flags)
            AND $1::interval IS NOT NULL""",
}


async def misjudged(conn: Any, hours: int = 24, *, over_nodes: bool = False) -> list[str]:
    """A line for each click that is flagged wrongly, ten of a kind at most; empty: all is well. `over_nodes`: clicks of
    two nodes touch each other too.
    """
    return [
        f"{row[0].hex}: {fault}"
        for fault, query in _CHECKS.items()
        for row in await conn.fetch(_judging(query, over_nodes=over_nodes), timedelta(hours=hours))
    ]


def _judging(query: str, *, over_nodes: bool) -> str:
    text = f"{_WITH} {query} LIMIT 10"
    return text.replace("node_id, ", "").replace(" AND later.node_id = first.node_id", "") if over_nodes else text
