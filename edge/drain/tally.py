"""Verdicts, counted by status and, where they are refusals, by reason."""

from edge.counters import Counters, cell
from edge.tracking.status_codes import REJECTIONS
from edge.tracking.verdict import Verdict

_DECIDED = {status: cell("edge_conversions_decided_total", status) for status in ("approved", "pending", "rejected")}
_REJECTED = {reason: cell("edge_conversions_rejected_total", reason) for reason in REJECTIONS}


def count_verdict(counters: Counters, verdict: Verdict) -> None:
    """One more decided conversion, once its transaction is committed."""
    counters.cells[_DECIDED[verdict.status]] += 1
    if verdict.status == "rejected":
        counters.cells[_REJECTED[verdict.reason]] += 1
