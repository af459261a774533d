"""Ports between the emulated phone and its client, both ways."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from shuffledeploy.deploy.phone.emulated_phone.adb_streams import AdbStream, StreamClosedError

_LOOPBACK = "127.0.0.1"
_PIECE = 64 << 10

#: Opens a stream to a port of the client's machine, by what it is called there.
OpenStream = Callable[[str], Awaitable[AdbStream]]


async def serve_port(stream: AdbStream, port: int) -> bool:
    """Join a stream with what listens on a port of the phone; False where nothing does."""
    try:
        reader, writer = await asyncio.open_connection(_LOOPBACK, port)
    except (OSError, OverflowError):
        return False
    await stream.accept()
    await _join(stream, reader, writer)
    return True


async def _join(
    stream: AdbStream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Carry bytes both ways until one side ends."""

    async def outwards() -> None:
        while piece := await reader.read(_PIECE):
            await stream.write(piece)

    async def inwards() -> None:
        while piece := await stream.read():
            writer.write(piece)
            await writer.drain()

    ways = [asyncio.ensure_future(outwards()), asyncio.ensure_future(inwards())]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        # Both ends may be gone by now: that is how it ends.
        await asyncio.gather(*ways, return_exceptions=True)
        writer.close()
        with contextlib.suppress(StreamClosedError):
            await stream.close()


class ReversePorts:
    """Ports of the phone that lead to the client's machine.

    Parameters
    ----------
    open_stream : Callable
        Opens a stream to the client.
    """

    def __init__(self, open_stream: OpenStream) -> None:
        self._open = open_stream
        self._servers: dict[int, tuple[asyncio.Server, str]] = {}

    async def serve(self, stream: AdbStream, request: str) -> None:
        """Answer ``forward:``, ``killforward:``, ``killforward-all`` and ``list-forward``."""
        with contextlib.suppress(StreamClosedError):
            await stream.write(await self._answer(request))
            await stream.close()

    async def _answer(self, request: str) -> bytes:
        if request == "list-forward":
            # Alone of the four it has no OKAY.
            rows = [f"host-1 tcp:{port} {to}\n" for port, (_, to) in self._servers.items()]
            return _counted("".join(rows))
        if request == "killforward-all":
            self.close()
            return b"OKAY"
        kind, _, rest = request.partition(":")
        local, _, to = rest.removeprefix("norebind:").partition(";")
        port = local.removeprefix("tcp:")
        if not port.isdecimal():
            return b"FAIL" + _counted(f"cannot listen on {local}")
        if kind == "killforward":
            found = self._servers.pop(int(port), None)
            if not found:
                return b"FAIL" + _counted(f"listener 'tcp:{port}' not found")
            found[0].close()
            return b"OKAY"
        return await self._listen(int(port), to)

    async def _listen(self, port: int, to: str) -> bytes:
        if old := self._servers.pop(port, None):
            old[0].close()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                stream = await self._open(to)
            except StreamClosedError:
                writer.close()
                return
            await _join(stream, reader, writer)

        try:
            server = await asyncio.start_server(connected, _LOOPBACK, port)
        except (OSError, OverflowError) as error:
            return b"FAIL" + _counted(f"cannot bind listener: {error}")
        found = int(server.sockets[0].getsockname()[1])
        self._servers[found] = (server, to)
        return b"OKAY" + (_counted(str(found)) if port == 0 else b"")

    def close(self) -> None:
        """Stop listening on all of them."""
        for server, _ in self._servers.values():
            server.close()
        self._servers.clear()


def _counted(text: str) -> bytes:
    """Write a text as adb's services do: its length in four hexadecimal digits first."""
    return f"{len(text):04x}{text}".encode()
