"""What the fault tests share: a line for the figures, a database behind a gate, nodes that use it."""

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.faults.gate import Gate
from tests.faults.load import Client, MakeClient, Say
from tests.faults.offers import catalog_text
from tests.node import Node
from tests.partners import PartnerServer


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Prints a line although the test passes: the seed and the figures of a run."""

    def say(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{line}")

    return say


@pytest.fixture
async def make_client() -> AsyncIterator[MakeClient]:
    """A factory of connections to a port, closed at the end."""
    clients: list[Client] = []

    def make(port: int) -> Client:
        clients.append(Client(port))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
async def gate(database: str) -> AsyncIterator[Gate]:
    """A fresh database behind an open gate."""
    gate = Gate(database)
    await gate.open()
    yield gate
    await gate.shut()


@pytest.fixture
async def partner() -> AsyncIterator[PartnerServer]:
    """Who is told of conversions, and answers 200 at first."""
    async with PartnerServer().listening() as partner:
        yield partner


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """The catalog of the load."""
    path = tmp_path / "catalog.toml"
    path.write_text(catalog_text())
    return path


@pytest.fixture
def make_gated(make_node: Callable[..., Node], gate: Gate, catalog: Path) -> Callable[..., Node]:
    """A factory of nodes whose database is behind the gate."""

    def make(**env: str) -> Node:
        return make_node(
            catalog=catalog,
            EDGE_DATABASE_URL=gate.url,
            EDGE_SECRET="secret-of-the-fault-tests",
            EDGE_NODE_ID="7",
            **env,
        )

    return make
