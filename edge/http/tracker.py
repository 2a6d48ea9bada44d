"""From a parsed request to its answer, whoever parsed it: handle, journal, settle, count."""

import time
from collections.abc import Callable

import structlog

from edge.counters import HANDLING_BUCKETS_US, KINDS, OUTCOMES, cell
from edge.logs import RateLimited
from edge.tracking.dialects import dispatch
from edge.tracking.request import UNAVAILABLE, Answer, Handled, Kind, Request, text
from edge.tracking.state import EdgeState
from storage.errors import StorageError
from storage.journal.commit import GroupCommit

FAILED = text(500, "this could not be handled")

_REQUESTS = [{outcome: cell("edge_requests_total", kind, outcome) for outcome in OUTCOMES} for kind in KINDS]
_HANDLING = [cell("edge_handling_seconds", kind) for kind in KINDS]
_DROPPED = cell("edge_events_dropped_total")


class Tracker:
    """What the lane and the routes of one worker share."""

    def __init__(
        self,
        state: EdgeState,
        journal: GroupCommit,
        *,
        on_broken: Callable[[BaseException], None],
        durable_clicks: bool,
        durable_conversions: bool,
    ) -> None:
        self.state = state
        self._journal = journal
        self._on_broken = on_broken
        self._quietly = RateLimited(structlog.get_logger(), 5.0)
        # By Kind: click, impression, postback, pixel, other.
        self._is_durable = (durable_clicks, durable_clicks, durable_conversions, durable_conversions, False)

    def handle(self, request: Request) -> Handled:
        """The handler's result, timed. Hand it to `submit` before anything else is awaited."""
        started_ns = time.perf_counter_ns()
        try:
            handled = dispatch(self.state, request)
        except StorageError as error:  # the id lease: this process may mint no more
            self._on_broken(error)
            return Handled(Kind.OTHER, "unavailable", UNAVAILABLE)
        except Exception:  # a bug of ours costs this request, and no other
            self._quietly.error("request_failed", exc_info=True)
            return Handled(Kind.OTHER, "unavailable", FAILED)
        duration_us = (time.perf_counter_ns() - started_ns) // 1000
        self.state.counters.observe(_HANDLING[handled.kind], HANDLING_BUCKETS_US, duration_us)
        return handled

    def submit(self, handled: Handled, done: Callable[[bool], None]) -> None:
        """Journal the event; `done` says whether it is there, and `settle` what to answer then."""
        self._journal.append(
            handled.event, done, is_droppable=handled.is_droppable, is_durable=self._is_durable[handled.kind]
        )

    def settle(self, handled: Handled, is_written: bool) -> Answer:
        """The answer, counted. A request without an event counts as written."""
        cells = self.state.counters.cells
        if is_written:
            if handled.session:
                self.state.sessions.put(handled.session_id, handled.session)
        elif handled.is_droppable:
            cells[_DROPPED] += 1
        else:
            cells[_REQUESTS[handled.kind]["unavailable"]] += 1
            return UNAVAILABLE
        cells[_REQUESTS[handled.kind][handled.outcome]] += 1
        return handled.answer
