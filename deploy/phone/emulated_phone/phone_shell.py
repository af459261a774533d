"""adb's shell on the emulated phone: the two forms of ``shell``, and ``exec``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from shuffledeploy.deploy.phone.emulated_phone.adb_messages import ProtocolError
from shuffledeploy.deploy.phone.emulated_phone.adb_streams import AdbStream, StreamClosedError
from shuffledeploy.deploy.remote.remote_host import Command

_PIECE = 32 << 10
_KILLED = 128
# Packets of the second form: a kind, a length, bytes.
_PACKET = struct.Struct("<BI")
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_LONGEST_PACKET = 1 << 20

Write = Callable[[bytes], Awaitable[None]]


async def serve_plain_shell(stream: AdbStream, program: Command) -> None:
    """Run a program; its output and its errors are one stream, its exit status is not told."""
    said = await _Pipe.create()
    process = await _start(program, said, said)
    feed = asyncio.ensure_future(_feed_plain(stream, process))
    await _finish(process, feed, [said.pump(stream.write)])
    await stream.close()


async def serve_packet_shell(stream: AdbStream, program: Command) -> None:
    """Run a program; packets tell its output, its errors and its exit status apart."""
    output, errors = await _Pipe.create(), await _Pipe.create()
    process = await _start(program, output, errors)
    one_at_a_time = asyncio.Lock()

    def packets(kind: int) -> Write:
        async def write(payload: bytes) -> None:
            async with one_at_a_time:
                await stream.write(_PACKET.pack(kind, len(payload)) + payload)

        return write

    feed = asyncio.ensure_future(_feed_packets(stream, process))
    pumps = [output.pump(packets(_STDOUT)), errors.pump(packets(_STDERR))]
    status = await _finish(process, feed, pumps)
    with contextlib.suppress(StreamClosedError):
        await packets(_EXIT)(bytes([status & 0xFF]))
    await stream.close()


@dataclass(frozen=True)
class _Pipe:
    """A pipe that a program writes to, and that can be closed before the program ends."""

    writing: int
    reader: asyncio.StreamReader
    transport: asyncio.ReadTransport

    @staticmethod
    async def create() -> _Pipe:
        """Open one."""
        reading, writing = os.pipe()
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb")
        )
        return _Pipe(writing, reader, transport)

    async def pump(self, write: Write) -> None:
        """Send what a program says; once nobody wants it, the program's next word ends it."""
        with contextlib.suppress(StreamClosedError):
            while piece := await self.reader.read(_PIECE):
                await write(piece)
        self.transport.close()


async def _start(program: Command, output: _Pipe, errors: _Pipe) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *program.words, env=dict(program.environment), stdin=asyncio.subprocess.PIPE,
            stdout=output.writing, stderr=errors.writing,
        )  # fmt: skip
    finally:
        for writing in {output.writing, errors.writing}:
            os.close(writing)


async def _finish(
    process: asyncio.subprocess.Process,
    feed: asyncio.Future[None],
    pumps: Sequence[Awaitable[None]],
) -> int:
    """Wait for a program and all that it says; give its exit status as a shell would."""
    await asyncio.gather(*pumps)
    status = await process.wait()
    feed.cancel()
    with contextlib.suppress(asyncio.CancelledError, StreamClosedError, ProtocolError):
        await feed
    return status if status >= 0 else _KILLED - status


async def _feed_plain(stream: AdbStream, process: asyncio.subprocess.Process) -> None:
    """Give a program what comes from the client, and its end."""
    assert process.stdin
    while piece := await stream.read():
        await _give(process.stdin, piece)
    process.stdin.close()


async def _feed_packets(stream: AdbStream, process: asyncio.subprocess.Process) -> None:
    """Give a program what comes from the client in packets, and its end."""
    assert process.stdin
    try:
        while True:
            kind, size = _PACKET.unpack(await stream.read_exactly(_PACKET.size))
            if size > _LONGEST_PACKET:
                raise ProtocolError("a packet of a shell that is too long")
            payload = await stream.read_exactly(size)
            if kind == _STDIN:
                await _give(process.stdin, payload)
            elif kind == _CLOSE_STDIN:
                process.stdin.close()
    finally:
        process.stdin.close()


async def _give(stdin: asyncio.StreamWriter, piece: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        stdin.write(piece)
        await stdin.drain()
