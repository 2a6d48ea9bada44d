"""A worker's view of the published state: the file, followed. The database is never asked."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from storage.state_file import PublishedState, StateDamaged, read_state

STATE = "published.state"
CHECK_INTERVAL_S = 0.25
_Stamp = tuple[int, int, int]


class StateFollower:
    """Tells each new state. A file that is damaged, or gone, or cannot be read yet, changes nothing and is reported once."""

    def __init__(
        self, path: Path, on_change: Callable[[PublishedState], None], on_refused: Callable[[Exception], None]
    ) -> None:
        self._path = path
        self._on_change = on_change
        self._on_refused = on_refused
        self._seen: _Stamp | None = None
        self._told = ""
        """What kept us from reading the file when it was last tried."""

    async def run(self) -> None:
        """Follow the file for ever."""
        while True:
            self.take_new()
            await asyncio.sleep(CHECK_INTERVAL_S)

    def take_new(self) -> None:
        """Take the file if it is another than the last. It is small: a few bytes for each capped offer."""
        before = self._seen
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            if stamp == self._seen:
                return
            self._seen = stamp
            state = read_state(self._path)
        except FileNotFoundError as error:
            if self._seen is not None:  # else none was ever written: a first start
                self._seen = None
                self._on_refused(error)
        except StateDamaged as error:
            self._on_refused(error)
        except OSError as error:  # this moment's fault, not the file's: no descriptor, say
            self._seen = before
            if str(error) != self._told:
                self._told = str(error)
                self._on_refused(error)
        else:
            self._told = ""
            self._on_change(state)
