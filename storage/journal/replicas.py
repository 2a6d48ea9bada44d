"""Answers that wait until other machines have their events (`replicated`), in the journal's order.

R1  While the stream is there, an answer leaves once the acknowledged place has reached the end of the write with its event.
R2  While the stream is away, it leaves once that write is on this machine's disk: it falls back.
R3  Away is: nobody tells places, who tells them says so, or an acknowledgement took longer than a second. The latter is
    over when all is acknowledged, or something that was written less than a second ago.
R4  A place beyond the journal's end is refused: it would vouch for what is not written yet.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from storage.journal.segments import Position
from storage.journal.writer import JournalWriter

Done = Callable[[bool], None]
PATIENCE_S = 1.0
UNLINKED = "there is no shipper"
LATE = "an acknowledgement took longer than a second"
_START = Position(0, 0)


class ReplicationWatch:
    """Who wants to know how answers left; this one does not."""

    def confirmed(self, answers: int, duration_us: float) -> None:
        """So many answers had waited that long, from their write on, for the acknowledgement that came."""

    def fell_back(self, answers: int, reason: str) -> None:
        """So many answers left after an fsync, and why."""

    def came_back(self) -> None:
        """The stream is there: answers wait for it from now on."""


@dataclass(slots=True)
class _Write:
    """A journal write with answers that wait. `end`: where it ends; `written_s`: when it was, `time.monotonic`."""

    end: Position
    written_s: float
    dones: list[Done] = field(default_factory=list)


class Replicas:
    """Which answers wait, and what for. Until `go_up` says otherwise the stream is away.

    `tell` calls a waiter and survives its faults.
    """

    def __init__(self, writer: JournalWriter, watch: ReplicationWatch, tell: Callable[[Done, bool], None]) -> None:
        self.on_waiting: Callable[[], None] = lambda: None
        """Called after a write that somebody waits for."""
        self._writer = writer
        self._watch = watch
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        # The mutable state: the writes that wait, how far they are safe, and what is known of the stream.
        self._writes: deque[_Write] = deque()
        self._settled = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._last = self._reached = self._synced = _START
        self._absence = UNLINKED
        self._is_late = False
        self._probe: _Write | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether an answer waits."""
        return bool(self._writes)

    def hold(self, done: Done) -> Done | None:
        """Let `done` wait; its event was in the write before. What the write's fsync is to call, if it is the first."""
        end = self._writer.appended
        if self._writes and self._writes[-1].end == end:
            self._writes[-1].dones.append(done)
            return None
        write = _Write(end, time.monotonic(), [done])
        self._writes.append(write)
        self._last = end
        self._settled.clear()
        if self._is_away and (self._probe is None or write.written_s - self._probe.written_s > PATIENCE_S):
            self._probe = write
        self._timer = self._timer or self._loop.call_later(PATIENCE_S, self._look)
        self.on_waiting()
        return lambda is_synced: self._sync(end)

    def reach(self, place: Position) -> None:
        """The stream has everything before `place`; ValueError when the journal does not (R4)."""
        if place > self._writer.appended:
            raise ValueError(f"{tuple(place)} is beyond the journal's end, {tuple(self._writer.appended)}")
        self._reached = max(self._reached, place)
        now_s = time.monotonic()
        while self._writes and self._writes[0].end <= place:
            write = self._writes.popleft()
            self._watch.confirmed(len(write.dones), (now_s - write.written_s) * 1e6)
            self._answer(write)
        if self._is_late and (place >= self._last or self._is_prompt(place, now_s)):
            self._is_late = False
            self._note_return()

    def go_up(self) -> None:
        """The shipper says that the stream is there. What it does not have yet it must catch up with first (R3)."""
        self._absence = ""
        self._is_late = self._reached < self._last
        self._note_return()

    def go_down(self, reason: str) -> None:
        """The stream is away, or nobody would tell."""
        self._absence = reason
        self._release()

    async def settle(self) -> None:
        """Until nobody waits; a second and an fsync at the most."""
        if self._writes:
            await self._settled.wait()

    def forget(self) -> None:
        """Confirm nothing any more."""
        self._writes.clear()
        self._settled.set()
        if self._timer:
            self._timer.cancel()
            self._timer = None

    @property
    def _is_away(self) -> bool:
        return bool(self._absence) or self._is_late

    def _is_prompt(self, place: Position, now_s: float) -> bool:
        """Whether the stream has acknowledged the write that was chosen to tell, and in time."""
        probe = self._probe
        if probe is None or place < probe.end:
            return False
        self._probe = None
        return now_s - probe.written_s <= PATIENCE_S

    def _note_return(self) -> None:
        if not self._is_away:
            self._probe = None
            self._watch.came_back()

    def _sync(self, end: Position) -> None:
        """The journal is on the disk up to `end`."""
        self._synced = max(self._synced, end)
        self._release()

    def _look(self) -> None:
        """Is the oldest write overdue? One timer for all, at most a second behind each."""
        self._timer = None
        if not self._writes:
            return
        rest_s = self._writes[0].written_s + PATIENCE_S - time.monotonic()
        if rest_s <= 0:
            self._is_late = True
            self._release()
        if self._writes:
            self._timer = self._loop.call_later(rest_s if rest_s > 0 else PATIENCE_S, self._look)

    def _release(self) -> None:
        """Answer what is on the disk and must not wait for the stream (R2)."""
        writes, is_away = self._writes, self._is_away
        overdue_s = time.monotonic() - PATIENCE_S
        while writes and writes[0].end <= self._synced and (is_away or writes[0].written_s <= overdue_s):
            write = writes.popleft()
            self._watch.fell_back(len(write.dones), self._absence or LATE)
            self._answer(write)

    def _answer(self, write: _Write) -> None:
        for done in write.dones:
            self._tell(done, True)
        if not self._writes:
            self._settled.set()
