"""What a fault may lay hands on."""

import asyncio
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import asyncpg

from benchmarks.soak.ledger import OK, UNANSWERED, Writer
from benchmarks.soak.node import SoakFailed, SoakNode
from benchmarks.soak.partners import Listener

_ID = re.compile(r"\b[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}\b")
OWN_MARKS = "f-"
"""How the marks of requests begin that faults send themselves."""


@dataclass
class Scene:
    """The node under load and its surroundings. `hold_s`: how long a fault should last that does not end by itself."""

    node: SoakNode
    partners: Sequence[Listener]
    directory: Path
    chance: random.Random
    hold_s: float
    ledger: Writer = field(init=False)
    """Of the requests that faults send themselves."""
    edition: int = 0
    """Of the catalog in force."""
    _sent: int = 0

    def __post_init__(self) -> None:
        self.ledger = Writer(self.directory / "faults.ledger")

    def mark(self) -> str:
        """A new one."""
        self._sent += 1
        return f"{OWN_MARKS}{self._sent}"

    async def click(self) -> str:
        """A click of our own over a new connection, written down like all others; its id."""
        mark, began_s = self.mark(), time.time()
        self.ledger.sent(mark, "clicks", began_s)
        target = f"{self.node.origin}/aff_c?offer_id=1&aff_id=1&aff_sub4={mark}"
        try:
            async with aiohttp.ClientSession() as session, session.get(target, allow_redirects=False) as answer:
                found = _ID.search(answer.headers.get("Location", ""))
        except aiohttp.ClientError as error:
            self.ledger.answered(mark, UNANSWERED, time.time(), 0)
            raise SoakFailed(f"a click was not answered: {error}") from error
        if found is None:
            raise SoakFailed(f"a click was answered with {answer.status}")
        self.ledger.answered(mark, OK, time.time(), (time.time() - began_s) * 1000, found[0])
        return found[0]

    async def has_database(self, timeout_s: float = 1.0) -> bool:
        """Whether PostgreSQL takes a connection and answers within that time."""
        try:
            async with asyncio.timeout(timeout_s):
                conn = await asyncpg.connect(self.node.database_url, timeout=timeout_s)
        except (OSError, asyncpg.PostgresError, TimeoutError):
            return False
        conn.terminate()
        return True
