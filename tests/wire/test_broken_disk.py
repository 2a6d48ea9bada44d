"""A worker's process whose disk fails an fsync: nothing more is confirmed, and it ends at once with an error."""

import asyncio
import signal
import sys
import time
from pathlib import Path

import pytest

from edge.worker import BROKEN_EXIT, FINISH_S

# The port of the tests on a disk that breaks on a signal; what happens then is the worker's own doing.
PROCESS = """
import asyncio, functools, signal, sys
from pathlib import Path

import uvloop

from edge.worker import Worker
from tests.journal_disk import FaultyDisk
from tests.wire.port import serving

async def main():
    disk = FaultyDisk()
    async with serving(Path(sys.argv[1]), disk=disk) as port:
        port.journal._on_broken = functools.partial(Worker._break, None)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, disk.failing.add, "sync_data")
        print(port.number, await port.click(), flush=True)
        await asyncio.sleep(60)

uvloop.run(main())
"""
ROOT = Path(__file__).parents[2]


@pytest.mark.reliability(number=7)
@pytest.mark.parametrize("count", [1, 50])
async def test_a_failed_fsync_ends_the_process_within_a_second_and_confirms_nothing(tmp_path: Path, count: int) -> None:
    """EIO: connections that wait for it get no answer, not even one of those that come later; exit code 70."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROCESS, str(tmp_path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    port, click_id = (await process.stdout.readline()).split()
    process.send_signal(signal.SIGUSR1)
    wires = [await asyncio.open_connection("127.0.0.1", int(port)) for _ in range(count)]
    began_s = time.monotonic()
    for _, writer in wires:
        writer.write(b"GET /aff_lsr?transaction_id=%s HTTP/1.1\r\nHost: x\r\n\r\n" % click_id)
    said = await asyncio.gather(*(reader.read() for reader, _ in wires), return_exceptions=True)
    assert await process.wait() == BROKEN_EXIT
    assert time.monotonic() - began_s < FINISH_S / 2, "it waits for nobody; on a quiet machine it takes a twentieth of a second"
    assert {one for one in said if isinstance(one, bytes)} <= {b""}
    for _, writer in wires:
        writer.close()
