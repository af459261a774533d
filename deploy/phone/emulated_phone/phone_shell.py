"""adb's shell on the emulated phone: the two forms of ``shell``, and ``exec``."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from shuffledeploy.deploy.phone.emulated_phone.adb_messages import ProtocolError
from shuffledeploy.deploy.phone.emulated_phone.adb_streams import AdbStream, StreamClosedError

_PIECE = 32 << 10
_KILLED = 128
# Packets of the second form: a kind, a length, bytes.
_PACKET = struct.Struct("<BI")
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_LONGEST_PACKET = 1 << 20

Write = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True)
class ShellProgram:
    """How a line of a shell is run.

    Attributes
    ----------
    command : tuple of str
        A command of this machine.
    environment : dict
        What it sees.
    """

    command: tuple[str, ...]
    environment: dict[str, str]


async def serve_plain_shell(stream: AdbStream, program: ShellProgram) -> None:
    """Run a program; its output and its errors are one stream, its exit status is not told."""
    process = await _start(program, asyncio.subprocess.STDOUT)
    feed = asyncio.ensure_future(_feed_plain(stream, process))
    await _finish(process, feed, [_pump(process.stdout, stream.write)])
    await stream.close()


async def serve_packet_shell(stream: AdbStream, program: ShellProgram) -> None:
    """Run a program; packets tell its output, its errors and its exit status apart."""
    process = await _start(program, asyncio.subprocess.PIPE)
    one_at_a_time = asyncio.Lock()

    def packets(kind: int) -> Write:
        async def write(payload: bytes) -> None:
            async with one_at_a_time:
                await stream.write(_PACKET.pack(kind, len(payload)) + payload)

        return write

    feed = asyncio.ensure_future(_feed_packets(stream, process))
    outputs = [
        _pump(process.stdout, packets(_STDOUT)),
        _pump(process.stderr, packets(_STDERR)),
    ]
    status = await _finish(process, feed, outputs)
    with contextlib.suppress(StreamClosedError):
        await packets(_EXIT)(bytes([status & 0xFF]))
    await stream.close()


async def _start(program: ShellProgram, errors: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *program.command, env=program.environment, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=errors,
    )  # fmt: skip


async def _finish(
    process: asyncio.subprocess.Process,
    feed: asyncio.Future[None],
    outputs: Sequence[Awaitable[None]],
) -> int:
    """Wait for a program and all that it says; give its exit status as a shell would."""
    await asyncio.gather(*outputs)
    status = await process.wait()
    feed.cancel()
    with contextlib.suppress(asyncio.CancelledError, StreamClosedError, ProtocolError):
        await feed
    return status if status >= 0 else _KILLED - status


async def _pump(source: asyncio.StreamReader | None, write: Write) -> None:
    """Send what a program says; what nobody wants any longer is read and dropped."""
    assert source
    wanted = True
    while piece := await source.read(_PIECE):
        if wanted:
            try:
                await write(piece)
            except StreamClosedError:
                wanted = False


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
