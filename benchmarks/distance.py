"""A simulated network that delays every byte between client and server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from tests.support.faults import HOST

PIECE = 64 * 1024


@contextlib.contextmanager
def distance(port: int, seconds: float) -> Iterator[int]:
    """A port that forwards to ``port`` with a delay of ``seconds`` in each direction."""
    loop = asyncio.new_event_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, port)
        await asyncio.gather(_carry(reader, back, seconds), _carry(there, writer, seconds))

    server = loop.run_until_complete(asyncio.start_server(serve, HOST, 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float
) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(PIECE):
            loop.call_later(seconds, writer.write, piece)
    loop.call_later(seconds, writer.close)
