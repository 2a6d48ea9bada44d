"""Which faults there are, what each may cost whoever sends requests, and the order in which they come."""

import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from benchmarks.soak.faults import catalog, clock, crowds, database, journal, partner, processes
from benchmarks.soak.scene import Scene

SHORTEST_S, LONGEST_S = 20.0, 60.0
"""From one fault to the next."""
CALM_S = 20.0
"""Before the first fault and after the last: what is measured there is the load alone."""


class Fault(NamedTuple):
    """`strike` does it, sees that it took effect (SoakFailed otherwise), undoes it, and says what it saw.

    Of what it may cost: `unanswered` connections break, with at most one request in each; `refused`: conversions get 503;
    `dropped`: clicks are answered and counted as not recorded. What is False must not happen once.
    """

    name: str
    does: str
    strike: Callable[[Scene], Awaitable[str]]
    unanswered: bool = False
    refused: bool = False
    dropped: bool = False
    after: str = ""
    """Of the fault that this one must follow, when both come."""


FAULTS = (
    Fault("restart", "SIGHUP: every process replaced, one by one", processes.reload),
    Fault("journal full", "PostgreSQL stopped, the journal filled to its cap", journal.fill, refused=True, dropped=True),
    Fault("drain kill", "kill -9 of a drain", processes.kill_drain),
    Fault("half-open", "1,000 connections whose request never ends", crowds.leave_half_open),
    Fault("sender kill", "kill -9 of the sender", processes.kill_sender),
    Fault("catalog", "`clickedge apply`, again and again", catalog.reload),
    Fault("clock step", "the node's clock two minutes ahead, then back", clock.step),
    Fault("worker kill", "kill -9 of a worker", processes.kill_worker, unanswered=True, after="clock step"),
    Fault("database kill", "kill -9 of PostgreSQL", database.kill_server),
    Fault("slow partner", "a partner that takes requests and does not answer", partner.hang),
    Fault("admin kill", "kill -9 of the admin process", processes.kill_admin),
    Fault("brute force", "wrong keys at the log-in and the API", crowds.guess_keys),
    Fault("database pause", "SIGSTOP of all of PostgreSQL", database.pause),
)


def schedule(minutes: float, chance: random.Random, possible: list[Fault]) -> list[tuple[float, Fault]]:
    """(seconds from the start, fault): each kind once in the table's order, then at random, with what must follow it.

    Evenly spaced, a minute apart or, in a short soak, as close as is needed for each kind to come once.
    """
    room_s = minutes * 60 - 2 * CALM_S
    spacing_s = min(LONGEST_S, max(SHORTEST_S, room_s / len(possible)))
    wanted = max(len(possible), int(room_s / spacing_s))
    chosen = list(possible)
    while len(chosen) < wanted:
        chosen += _with_followers(chance.choice([one for one in possible if not one.after]), possible)
    return [(CALM_S + number * spacing_s, fault) for number, fault in enumerate(chosen[:wanted])]


def _with_followers(fault: Fault, possible: list[Fault]) -> list[Fault]:
    return [fault, *(one for one in possible if one.after == fault.name)]
