"""Shipments on their way: sent one after the other, acknowledged in any order, counted in the order they were sent."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence

import nats.errors
from nats.js.api import PubAck
from nats.js.errors import Error as JetStreamError

from storage.stream.connection import StreamConnection
from storage.stream.servers import StreamAway
from storage.stream.shipments import STREAM, Beat, Message, encode, subject_for

ACK_S = 5.0
MESSAGES_UNDER_WAY = 64
BYTES_UNDER_WAY = 8 * 2**20

Acknowledged = Callable[[int, int, int], None]
"""Events, bytes and microseconds of a message, once the stream has it."""


class Delivery:
    """Messages that count only together."""

    def __init__(self) -> None:
        self.acks: list[asyncio.Future[PubAck]] = []

    @property
    def is_done(self) -> bool:
        """Whether the stream has all of it. StreamAway: it did not take something."""
        for ack in self.acks:
            if not ack.done():
                return False
            if ack.cancelled() or (error := ack.exception()):
                raise StreamAway(f"the stream did not take a message: {error if not ack.cancelled() else 'cancelled'}")
        return True


class Publisher:
    """The sending end of one connection. `wake` is called whenever an acknowledgement comes."""

    def __init__(self, connection: StreamConnection, acknowledged: Acknowledged, wake: Callable[[], None]) -> None:
        self._connection, self._jetstream = connection, connection.jetstream
        self._acknowledged = acknowledged
        self._wake = wake
        self._bytes_under_way = 0
        self._sent_s: dict[asyncio.Future[PubAck], float] = {}
        """When each message was sent that is not acknowledged yet, the oldest first."""

    def check(self) -> None:
        """StreamAway: something that is under way will never be acknowledged."""
        if self._connection.refusal:
            raise StreamAway(f"the stream did not take a message: {self._connection.refusal}")
        if self._connection.closed.is_set():
            raise StreamAway("the connection was closed")
        # Also of what nobody waits for any more, since it is to be sent again: it would take up room for ever.
        if time.monotonic() - next(iter(self._sent_s.values()), math.inf) > ACK_S:
            raise StreamAway(f"the stream has not acknowledged for {ACK_S:.0f} s")

    @property
    def has_room(self) -> bool:
        """Whether more may be sent before something is acknowledged."""
        return len(self._sent_s) < MESSAGES_UNDER_WAY and self._bytes_under_way < BYTES_UNDER_WAY

    async def send(self, shipped: Sequence[Message]) -> Delivery:
        """Send these, in order. StreamAway: the connection is gone."""
        messages = [(subject_for(one), encode(one), _count_events(one)) for one in shipped]
        delivery = Delivery()
        for subject, message, events in messages:
            try:
                ack = await self._jetstream.publish_async(subject, message, stream=STREAM)
            except (nats.errors.Error, JetStreamError, OSError) as error:
                raise StreamAway(f"the stream is gone: {error!r}") from error
            self._expect(ack, len(message), events)
            delivery.acks.append(ack)
        return delivery

    def _expect(self, ack: "asyncio.Future[PubAck]", size_bytes: int, events: int) -> None:
        sent_ns = time.perf_counter_ns()
        self._sent_s[ack] = time.monotonic()
        self._bytes_under_way += size_bytes

        def settle(ack: "asyncio.Future[PubAck]") -> None:
            del self._sent_s[ack]
            self._bytes_under_way -= size_bytes
            if not ack.cancelled() and ack.exception() is None:
                self._acknowledged(events, size_bytes, (time.perf_counter_ns() - sent_ns) // 1000)
            self._wake()

        ack.add_done_callback(settle)


def _count_events(message: Message) -> int:
    return 0 if isinstance(message, Beat) else len(message.entries)
