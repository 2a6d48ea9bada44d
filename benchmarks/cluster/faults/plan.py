"""Which faults there are, in the order in which they come, and which edges' requests each may leave unanswered."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from benchmarks.cluster.faults import machines, processes, servers
from benchmarks.cluster.scene import Scene


class Fault(NamedTuple):
    """`strike` does it, sees that it took effect (SoakFailed otherwise), undoes it, and says what it saw.

    `unanswered`: the edges whose connections may break meanwhile; requests to the others must all be answered.
    """

    name: str
    does: str
    strike: Callable[[Scene], Awaitable[str]]
    unanswered: frozenset[int] = frozenset()


class Mode(NamedTuple):
    """One cluster from its start to the last count: settings of its edges and drains, what happens to it."""

    name: str
    settings: Mapping[str, str]
    faults: tuple[Fault, ...]


BOTH, FIRST, SECOND = frozenset({0, 1}), frozenset({0}), frozenset({1})
REPLICATED = {"EDGE_CONVERSION_DURABILITY": "replicated", "EDGE_CLICK_DURABILITY": "replicated"}
MODES = (
    Mode(
        "disk",
        {},
        (
            Fault("postback first", "a postback at one edge before the other shipped its click", processes.convert_before_the_click),
            Fault("nats kill", "kill -9 of each NATS server", servers.kill_each_nats),
            Fault("drain kill", "kill -9 of all of one `clickedge drain`, then the other's", processes.kill_each_drain),
            Fault("drain process kill", "kill -9 of each drain's process alone", processes.kill_drain_processes),
            Fault("worker kill", "kill -9 of each edge's worker", processes.kill_workers, BOTH),
            Fault("shipper kill", "kill -9 of each edge's shipper", processes.kill_shippers),
            Fault("edge kill", "kill -9 of each edge's supervisor", processes.kill_edges, BOTH),
            Fault("database kill", "kill -9 of PostgreSQL", servers.kill_database),
            Fault("nats cut off", "SIGSTOP of the stream's leader for 15 s", servers.cut_off_nats),
            Fault("nats majority away", "two of three NATS servers away for 20 s", servers.lose_majority),
            Fault("rolling restart", "edges, drains and NATS servers replaced in turn", machines.restart_in_turn),
            Fault("idle disk lost", "an edge with nothing unshipped, and its disk, gone", machines.lose_idle_disk, SECOND),
        ),
    ),
    Mode(
        "replicated",
        REPLICATED,
        (
            Fault("busy disk lost", "an edge under load, and its disk, gone", machines.lose_busy_disk, FIRST),
            Fault("leader kill", "kill -9 of each NATS server", servers.kill_each_nats),
            Fault("replicated worker kill", "kill -9 of each edge's worker", processes.kill_workers, BOTH),
        ),
    ),
)
NAMES = [fault.name for mode in MODES for fault in mode.faults]


def chosen(only: list[str] | None) -> list[Mode]:
    """All modes, or those that have one of these faults, with these alone."""
    modes = [mode._replace(faults=tuple(one for one in mode.faults if not only or one.name in only)) for mode in MODES]
    return [mode for mode in modes if mode.faults]
