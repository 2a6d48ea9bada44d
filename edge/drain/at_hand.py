"""Sessions of clicks that a drain has just stored."""

from collections.abc import Container

from edge.tracking.sessions import Sessions
from storage.journal.events import Session, decode_session


class Chained:
    """Sessions of this batch, then those of earlier ones, but for the `hidden`."""

    def __init__(self, batch: dict[bytes, Session], earlier: Sessions[bytes], hidden: Container[bytes]) -> None:
        self._batch = batch
        self._earlier = earlier
        self._hidden = hidden

    def get(self, click_id: bytes, /) -> Session | None:
        """The session, if it is still there."""
        if click_id in self._hidden:
            return None
        session = self._batch.get(click_id)
        if session is None and (encoded := self._earlier.get(click_id)):
            session = decode_session(encoded)
        return session
