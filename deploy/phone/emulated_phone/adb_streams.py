"""Streams of bytes over one adb connection: each write waits until the other side took it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shuffledeploy.deploy.phone.emulated_phone.adb_messages import (
    CLOSE,
    OKAY,
    WRITE,
    Message,
    ProtocolError,
)

Send = Callable[[Message], Awaitable[None]]
#: Bytes of one message; a client takes at least so many.
_PIECE = 64 << 10


class StreamClosedError(Exception):
    """The other side closed the stream."""


@dataclass(frozen=True)
class StreamNumbers:
    """How the two sides call one stream."""

    ours: int
    theirs: int


class AdbStream:
    """One stream, as a service reads and writes it.

    Parameters
    ----------
    numbers : StreamNumbers
        How the sides call it.
    send : Callable
        Sends a message to the other side.
    """

    def __init__(self, numbers: StreamNumbers, send: Send) -> None:
        self.numbers = numbers
        self._send = send
        self._came: asyncio.Queue[bytes] = asyncio.Queue()
        self._rest = b""
        self._taken = asyncio.Event()
        self._taken.set()
        self._closed = False

    async def accept(self) -> None:
        """Tell the other side that the stream is open."""
        await self._reply(OKAY)

    def deliver(self, payload: bytes) -> None:
        """Take what the other side wrote; it writes no more until a service has read that.

        Raises
        ------
        ProtocolError
            If it did write more.
        """
        if not self._came.empty():
            raise ProtocolError("a client wrote before its last piece was taken")
        self._came.put_nowait(payload)

    def taken(self) -> None:
        """Take note that the other side took what was written."""
        self._taken.set()

    def end(self) -> None:
        """Take note that the other side closed the stream."""
        self._closed = True
        self._came.put_nowait(b"")
        self._taken.set()

    async def read(self) -> bytes:
        """Give the next piece; empty when the other side closed the stream."""
        if self._rest:
            piece, self._rest = self._rest, b""
            return piece
        if self._closed and self._came.empty():
            return b""
        piece = await self._came.get()
        if piece:
            await self._reply(OKAY)
        return piece

    async def read_exactly(self, count: int) -> bytes:
        """Give so many bytes.

        Raises
        ------
        StreamClosedError
            If the stream ends before.
        """
        pieces, missing = [], count
        while missing:
            piece = await self.read()
            if not piece:
                raise StreamClosedError
            pieces.append(piece[:missing])
            self._rest = piece[missing:]
            missing -= len(pieces[-1])
        return b"".join(pieces)

    async def write(self, payload: bytes) -> None:
        """Send bytes, however many.

        Raises
        ------
        StreamClosedError
            If the other side closed the stream.
        """
        for start in range(0, len(payload), _PIECE):
            await self._taken.wait()
            if self._closed:
                raise StreamClosedError
            self._taken.clear()
            await self._send(
                Message(
                    WRITE, self.numbers.ours, self.numbers.theirs, payload[start : start + _PIECE]
                )
            )

    async def close(self) -> None:
        """Tell the other side that nothing more comes, once it has taken everything."""
        if not self._closed:
            await self._taken.wait()
            await self._reply(CLOSE)
        self._closed = True

    async def _reply(self, command: int) -> None:
        await self._send(Message(command, self.numbers.ours, self.numbers.theirs))
