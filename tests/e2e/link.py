"""A slow and distant network: a TCP proxy that lets so many bits through in a second, and lets each arrive later.

In a process of its own, since threads of the one that is measured would take time from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import subprocess
import sys
from collections.abc import Callable, Iterator

from tests.tiny import ROOT


@contextlib.contextmanager
def link(target: int, *, mbit_s: float, round_trip_ms: float) -> Iterator[int]:
    """Lead from a port, which is given, to port ``target`` of this machine.

    Args:
        target: Port on this machine.
        mbit_s: Million bits that pass in a second, in each direction, over all connections together.
        round_trip_ms: Milliseconds for both ways; a connection itself is made without them.
    """
    command = [sys.executable, "-m", "tests.e2e.link", str(target), str(mbit_s), str(round_trip_ms)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()  # its sign to end, also if we are killed


class _Way:
    """One direction: what is carried leaves piece by piece, at the rate, and arrives after the delay."""

    def __init__(self, bytes_per_s: float, delay_s: float) -> None:
        self._bytes_per_s, self._delay_s = bytes_per_s, delay_s
        self._free = 0.0

    def carry(self, data: bytes, arrive: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        self._free = max(loop.time(), self._free) + len(data) / self._bytes_per_s
        loop.call_at(self._free + self._delay_s, arrive)

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 14):
                self.carry(data, lambda data=data: writer.write(data))
        self.carry(b"", writer.close)


async def _serve(target: int, mbit_s: float, round_trip_ms: float) -> None:
    up, down = (_Way(mbit_s * 1e6 / 8, round_trip_ms / 2000) for _ in range(2))

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", target)
        with contextlib.suppress(asyncio.CancelledError):  # the link ends before its connections
            await asyncio.gather(up.pump(reader, server_writer), down.pump(server_reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    # epoll counts whole milliseconds, select does not.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(_serve(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
