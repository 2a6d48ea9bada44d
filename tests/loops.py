"""Which event loop an async test runs on: the product's, uvloop; with `@pytest.mark.both_loops`, asyncio's own too.

tests/conftest.py loads this as a plugin: `pytest_plugins = ["tests.loops"]`.
"""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

PRODUCT_LOOP: Mapping[str, LoopFactory] = {"uvloop": uvloop.new_event_loop}
BOTH_LOOPS: Mapping[str, LoopFactory] = {"asyncio": asyncio.new_event_loop, **PRODUCT_LOOP}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """The loops of one test."""
    return BOTH_LOOPS if item.get_closest_marker("both_loops") else PRODUCT_LOOP
