"""The reading end of the stream: one consumer that keeps nothing, begun anew wherever the reader says.

R1  Messages come in the stream's order, those of all partitions that are read together: after one of sequence S nothing
    of S or before is still to come.
R2  What went missing on the way shows in the consumer's own count: StreamAway, and the reader begins anew from what is stored.
R3  Nothing is acknowledged: what is stored Postgres knows.
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy

from storage.stream.connection import StreamConnection
from storage.stream.servers import StreamAway
from storage.stream.shipments import EVERYBODY, STREAM, subject_of

FETCHED_MESSAGES = 64
"""Of up to 768 KiB: what a fetch may bring into memory at once."""
FORGOTTEN_AFTER_S = 30.0
SILENCE_S = 3.0
"""Each partition has a message a second while any worker runs: after this the server is asked whether it still knows us."""
ANSWER_S = 2.0
"""What is asked keeps the drain from its own machine's journals."""

_Answer = TypeVar("_Answer")


ALL = -1


class Message(NamedTuple):
    """One message; `partition` from its subject, ALL for one of all partitions."""

    sequence: int
    partition: int
    data: bytes


class StreamState(NamedTuple):
    """What the stream holds."""

    size_bytes: int
    messages: int
    last_sequence: int


class StreamReader:
    """Reads some partitions in order. One `open` at a time; `close` forgets it."""

    def __init__(self, connection: StreamConnection) -> None:
        self._connection = connection
        self._js = connection.jetstream
        self._consumer = ""
        self._subscription: JetStreamContext.PullSubscription | None = None
        self._count = 0
        self._heard_s = 0.0
        self.pending = 0
        """Messages of these partitions that have not been read yet."""

    async def state(self) -> StreamState:
        """What the stream holds. StreamAway."""
        info = await _answered(self._js.stream_info(STREAM))
        return StreamState(info.state.bytes, info.state.messages, info.state.last_seq)

    async def open(self, partitions: Sequence[int], after: int) -> None:
        """Begin with what follows sequence `after`. StreamAway."""
        await self.close()
        config = ConsumerConfig(
            ack_policy=AckPolicy.NONE,
            filter_subjects=[EVERYBODY, *map(subject_of, partitions)],
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            mem_storage=True,
            inactive_threshold=FORGOTTEN_AFTER_S,
            num_replicas=1,
        )
        info: ConsumerInfo = await _answered(self._js.add_consumer(STREAM, config))
        self._subscription = await _answered(self._js.pull_subscribe_bind(consumer=info.name, stream=STREAM))
        self._consumer, self._count = info.name, 0
        self.pending = info.num_pending or 0
        self._heard_s = time.monotonic()

    async def take(self, wait_s: float) -> list[Message]:
        """What comes next, some of it; nothing if nothing comes within `wait_s`. StreamAway (R2)."""
        if self._subscription is None or self._connection.closed.is_set():
            raise StreamAway("there is no connection to the stream")
        try:
            fetched = await self._subscription.fetch(FETCHED_MESSAGES, timeout=wait_s)
        except TimeoutError:
            await self._look_whether_known()
            return []
        except (nats.errors.Error, OSError) as error:
            raise StreamAway(f"the stream cannot be read: {error!r}") from error
        self._heard_s = time.monotonic()
        messages = []
        for message in fetched:
            metadata = message.metadata
            self._count += 1
            if metadata.sequence.consumer != self._count:
                raise StreamAway("messages went missing on the way")
            self.pending = metadata.num_pending or 0
            partition = ALL if message.subject == EVERYBODY else int(message.subject.rpartition(".")[2])
            messages.append(Message(metadata.sequence.stream, partition, message.data))
        return messages

    async def purge(self, through: int) -> None:
        """Delete what has a sequence of `through` or below. StreamAway."""
        await _answered(self._js.purge_stream(STREAM, seq=through + 1))

    async def close(self) -> None:
        """Forget the consumer; it goes by itself if it cannot be told."""
        subscription, self._subscription = self._subscription, None
        self.pending = 0
        if subscription is None or self._connection.closed.is_set():
            return
        with suppress(StreamAway):
            await _answered(subscription.unsubscribe())
            await _answered(self._js.delete_consumer(STREAM, self._consumer))

    async def _look_whether_known(self) -> None:
        """A consumer whose server restarted is gone without a word."""
        if time.monotonic() - self._heard_s < SILENCE_S:
            return
        info: ConsumerInfo = await _answered(self._js.consumer_info(STREAM, self._consumer))
        self.pending = info.num_pending or 0
        self._heard_s = time.monotonic()


async def _answered(asking: Awaitable[_Answer]) -> _Answer:
    try:
        async with asyncio.timeout(ANSWER_S):
            return await asking
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise StreamAway(f"the stream does not answer: {error!r}") from error
