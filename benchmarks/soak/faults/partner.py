"""A partner that hangs."""

import asyncio

from benchmarks.soak.node import SoakFailed
from benchmarks.soak.scene import Scene


async def hang(scene: Scene) -> str:
    """It takes requests and answers none; the others must hear as before."""
    slow, *others = scene.partners
    hung, told = slow.hung, sum(sum(one.told.values()) for one in others)
    slow.begin_to_hang()
    try:
        await asyncio.sleep(scene.hold_s)
    finally:
        slow.end_hanging()
    hung, told = slow.hung - hung, sum(sum(one.told.values()) for one in others) - told
    if not hung or not told:
        raise SoakFailed(f"{hung} requests hung, {told} were answered by the others meanwhile")
    return f"{hung} requests to it hung; the others were told {told} times meanwhile"
