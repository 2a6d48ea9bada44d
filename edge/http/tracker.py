"""From a parsed request to its answer, whoever parsed it: handle, journal, settle, count."""

import asyncio
import time
from collections.abc import Callable

import structlog

from edge.counters import cell
from edge.logs import RateLimited
from edge.metric_families import HANDLING_BUCKETS_US, KINDS, OUTCOMES
from edge.tracking.dialects import dispatch
from edge.tracking.request import UNAVAILABLE, Answer, Handled, Kind, Request, text
from edge.tracking.state import EdgeState
from storage.errors import StorageError
from storage.journal.commit import PROCESS, GroupCommit

FAILED = text(500, "this could not be handled")

MAX_CONTACT_CHARS = 256
"""Sessions with longer contacts are not remembered: two hundred thousand of them would be gigabytes."""

_REQUESTS = [{outcome: cell("edge_requests_total", kind, outcome) for outcome in OUTCOMES} for kind in KINDS]
_HANDLING = [cell("edge_handling_seconds", kind) for kind in KINDS]
_FULL, _CLIENT = (cell("edge_connections_refused_total", reason) for reason in ("full", "client"))
_DROPPED = cell("edge_events_dropped_total")


class Tracker:
    """What the lane and the routes of one worker share."""

    def __init__(
        self,
        state: EdgeState,
        journal: GroupCommit,
        *,
        on_broken: Callable[[BaseException], None],
        durable_clicks: int,
        durable_conversions: int,
    ) -> None:
        self.state = state
        self._journal = journal
        self._on_broken = on_broken
        self._loop = asyncio.get_running_loop()
        self.turn_ms = 0
        """When this loop turn's first request came, Unix milliseconds; 0: there was none yet."""
        self._began_ns = 0
        self._handled = [0] * len(KINDS)
        """This turn's requests by kind."""
        self._quietly = RateLimited(structlog.get_logger(), 5.0)
        # By Kind: click, impression, postback, pixel, other.
        self._durability = (durable_clicks, durable_clicks, durable_conversions, durable_conversions, PROCESS)

    def turn_away(self, close: Callable[[], None], *, is_full: bool) -> None:
        """Close a connection that there is no place for, or none for its client, and count it."""
        self.state.counters.cells[_FULL if is_full else _CLIENT] += 1
        close()

    def refuse(self, answer: Answer) -> Answer:
        """`answer`, counted as one to a malformed request."""
        return self.settle(Handled(Kind.OTHER, "bad_request", answer), True)

    def begin_turn(self) -> int:
        """The first request of a loop turn: the clock is read for all of them. Unix milliseconds."""
        self._began_ns = time.perf_counter_ns()
        self.turn_ms = time.time_ns() // 1_000_000
        self._loop.call_soon(self._end_turn)
        return self.turn_ms

    def handle(self, request: Request) -> Handled:
        """The handler's result. Hand it to `submit` before anything else is awaited."""
        try:
            handled = dispatch(self.state, request)
        except StorageError as error:  # the id lease: this process may mint no more
            self._on_broken(error)
            return Handled(Kind.OTHER, "unavailable", UNAVAILABLE)
        except Exception:  # a bug of ours costs this request, and no other
            self._quietly.error("request_failed", exc_info=True)
            return Handled(Kind.OTHER, "unavailable", FAILED)
        self._handled[handled.kind] += 1
        return handled

    def _end_turn(self) -> None:
        """Before the journal's write: what this turn's requests took, each its share."""
        self.turn_ms = 0
        counts, self._handled = self._handled, [0] * len(KINDS)
        duration_us = (time.perf_counter_ns() - self._began_ns) // 1000 / max(1, sum(counts))
        for kind, count in enumerate(counts):
            if count:
                self.state.counters.observe(_HANDLING[kind], HANDLING_BUCKETS_US, duration_us, count)

    def submit(self, handled: Handled, done: Callable[[bool], None]) -> None:
        """Journal the event; `done` says whether it is there, and `settle` what to answer then."""
        self._journal.append(handled.event, done, handled.is_droppable, self._durability[handled.kind])

    def settle(self, handled: Handled, is_written: bool) -> Answer:
        """The answer, counted. A request without an event counts as written."""
        cells = self.state.counters.cells
        if is_written:
            if handled.session is not None and len(handled.session.contact_id) <= MAX_CONTACT_CHARS:
                self.state.sessions.put(handled.session.click_id, handled.session)
        elif handled.is_droppable:
            cells[_DROPPED] += 1
        else:
            cells[_REQUESTS[handled.kind]["unavailable"]] += 1
            return UNAVAILABLE
        cells[_REQUESTS[handled.kind][handled.outcome]] += 1
        return handled.answer
