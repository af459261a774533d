"""The device's side of one adb connection: who is let in, and which service gets which stream."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from shuffledeploy.deploy.phone.emulated_phone.adb_messages import (
    AUTHENTICATE,
    AUTHENTICATE_TOKEN,
    CLOSE,
    CONNECT,
    FEATURES,
    MAX_PAYLOAD,
    OKAY,
    OPEN,
    VERSION,
    WRITE,
    Message,
    ProtocolError,
    read_message,
)
from shuffledeploy.deploy.phone.emulated_phone.adb_streams import (
    AdbStream,
    StreamClosedError,
    StreamNumbers,
)
from shuffledeploy.deploy.phone.emulated_phone.phone_files import PhoneDisk, serve_files
from shuffledeploy.deploy.phone.emulated_phone.phone_ports import ReversePorts, serve_port
from shuffledeploy.deploy.phone.emulated_phone.phone_shell import (
    serve_packet_shell,
    serve_plain_shell,
)
from shuffledeploy.deploy.phone.emulated_phone.phone_system import (
    PhoneFiles,
    banner,
    guest_environment,
    shell_command,
)
from shuffledeploy.deploy.phone.emulated_phone.phone_traits import PhoneTraits
from shuffledeploy.deploy.remote.remote_host import Command

_TOKEN_BYTES = 20


@dataclass(frozen=True)
class EmulatedPhone:
    """What a connection is made to.

    Attributes
    ----------
    files : PhoneFiles
        What it is made of.
    disk : PhoneDisk
        Its root.
    traits : PhoneTraits
        What it is.
    """

    files: PhoneFiles
    disk: PhoneDisk
    traits: PhoneTraits

    def program(self, line: str) -> Command:
        """Return how a line of its shell is run."""
        command = shell_command(self.files, self.disk.root, self.traits, line)
        return Command(tuple(command), guest_environment(self.files))


class AdbConnection:
    """One client's connection.

    Parameters
    ----------
    phone : EmulatedPhone
        What it is made to.
    reader, writer
        The connection.
    """

    def __init__(
        self, phone: EmulatedPhone, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._phone, self._reader, self._writer = phone, reader, writer
        self._streams: dict[int, AdbStream] = {}
        self._opening: dict[int, asyncio.Future[bool]] = {}
        self._numbers = itertools.count(1)
        self._services: set[asyncio.Task[None]] = set()
        self._reverse = ReversePorts(self._open_to_client)

    async def serve(self) -> None:
        """Answer until the client is gone."""
        try:
            while True:
                await self._take(await read_message(self._reader))
        except (asyncio.IncompleteReadError, ConnectionError, ProtocolError):
            return
        finally:
            self.close()

    def close(self) -> None:
        """End the connection and all of its streams."""
        self._reverse.close()
        for stream in self._streams.values():
            stream.end()
        for opening in self._opening.values():
            opening.cancel()
        self._writer.close()

    async def _send(self, message: Message) -> None:
        with contextlib.suppress(ConnectionError):
            self._writer.write(message.encode())
            await self._writer.drain()

    async def _take(self, message: Message) -> None:
        welcome = self._phone.traits.welcome
        if welcome == "silent":
            return
        if message.command == CONNECT and welcome == "open":
            await self._welcome()
        elif message.command in (CONNECT, AUTHENTICATE):
            # Whatever was signed: nobody is there to look at the screen.
            token = os.urandom(_TOKEN_BYTES)
            await self._send(Message(AUTHENTICATE, AUTHENTICATE_TOKEN, 0, token))
        elif welcome == "open":
            self._take_of_stream(message)

    async def _welcome(self) -> None:
        told = "".join(f"{name}={text};" for name, text in banner(self._phone.traits).items())
        text = f"device::{told}features={','.join(FEATURES)}"
        await self._send(Message(CONNECT, VERSION, MAX_PAYLOAD, text.encode()))

    def _take_of_stream(self, message: Message) -> None:
        """Hand a message to its stream; those for streams that are gone are dropped."""
        theirs, ours = message.first, message.second
        if message.command == OPEN:
            stream = self._new_stream(theirs)
            self._begin(self._serve_stream(stream, message.payload))
        elif message.command == OKAY and ours in self._opening:
            stream = self._streams[ours]
            stream.numbers = StreamNumbers(ours, theirs)
            self._opening.pop(ours).set_result(True)
        elif message.command == CLOSE and ours in self._opening:
            self._opening.pop(ours).set_result(False)
        elif stream_found := self._streams.get(ours):
            if message.command == OKAY:
                stream_found.taken()
            elif message.command == WRITE:
                stream_found.deliver(message.payload)
            elif message.command == CLOSE:
                stream_found.end()

    def _new_stream(self, theirs: int) -> AdbStream:
        numbers = StreamNumbers(next(self._numbers), theirs)
        stream = self._streams[numbers.ours] = AdbStream(numbers, self._send)
        return stream

    def _begin(self, service: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(service)
        # asyncio itself keeps no hold of a task.
        self._services.add(task)
        task.add_done_callback(self._services.discard)

    async def _serve_stream(self, stream: AdbStream, destination: bytes) -> None:
        """Run the service that a client asks for; one that there is not is closed at once."""
        name = destination.rstrip(b"\0").decode(errors="replace")
        kind, _, rest = name.partition(":")
        try:
            if kind == "tcp":
                is_served = rest.isdecimal() and await serve_port(stream, int(rest))
            else:
                is_served = await self._serve_other(stream, kind, rest)
            if not is_served:
                await self._send(Message(CLOSE, 0, stream.numbers.theirs))
        except (StreamClosedError, ProtocolError):
            await stream.close()
        finally:
            self._streams.pop(stream.numbers.ours, None)

    async def _serve_other(self, stream: AdbStream, kind: str, rest: str) -> bool:
        kind, *options = kind.split(",")
        if kind not in ("shell", "exec", "sync", "reverse"):
            return False
        await stream.accept()
        if kind == "sync":
            await serve_files(stream, self._phone.disk)
        elif kind == "reverse":
            await self._reverse.serve(stream, rest)
        elif "v2" in options:
            await serve_packet_shell(stream, self._phone.program(rest))
        else:
            await serve_plain_shell(stream, self._phone.program(rest))
        return True

    async def _open_to_client(self, destination: str) -> AdbStream:
        """Open a stream to a port of the client's machine.

        Raises
        ------
        StreamClosedError
            If nothing listens there.
        """
        stream = self._new_stream(0)
        ours = stream.numbers.ours
        opened = self._opening[ours] = asyncio.get_running_loop().create_future()
        await self._send(Message(OPEN, ours, 0, destination.encode() + b"\0"))
        try:
            is_open = await opened
        except asyncio.CancelledError:
            is_open = False
        if not is_open:
            self._streams.pop(ours, None)
            raise StreamClosedError
        return stream
