"""Messages of the adb protocol: a header of six numbers, and a payload.

The protocol is described in AOSP's ``packages/modules/adb/protocol.txt``.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass

#: Since this version of the protocol nobody checks the sum of a payload's bytes.
VERSION = 0x01000001
MAX_PAYLOAD = 1 << 20
#: What a device says that it can do; a client uses no more than that.
FEATURES = ("shell_v2", "cmd", "stat_v2", "ls_v2")

_HEADER = struct.Struct("<6I")
_NO_COMMAND = 0xFFFFFFFF


def _command(name: bytes) -> int:
    return int.from_bytes(name, "little")


CONNECT = _command(b"CNXN")
AUTHENTICATE = _command(b"AUTH")
OPEN = _command(b"OPEN")
OKAY = _command(b"OKAY")
WRITE = _command(b"WRTE")
CLOSE = _command(b"CLSE")

#: First argument of an `AUTHENTICATE`: a token to be signed.
AUTHENTICATE_TOKEN = 1


class ProtocolError(Exception):
    """What came is no message of the protocol."""


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes
    ----------
    command : int
        `CONNECT`, `OPEN`...
    first, second : int
        Its arguments; of streams the sender's number and the receiver's.
    payload : bytes
        At most `MAX_PAYLOAD`.
    """

    command: int
    first: int
    second: int
    payload: bytes = b""

    def encode(self) -> bytes:
        """Give the message as it goes over the wire."""
        # Until it knows the version that it speaks with, a client checks the sum.
        checked = 0 if self.command == WRITE else sum(self.payload)
        header = _HEADER.pack(
            self.command, self.first, self.second, len(self.payload), checked,
            self.command ^ _NO_COMMAND,
        )  # fmt: skip
        return header + self.payload


async def read_message(reader: asyncio.StreamReader) -> Message:
    """Read one message.

    Raises
    ------
    ProtocolError
        If what comes is none, or a payload is larger than agreed.
    asyncio.IncompleteReadError, ConnectionError
        If the other side is gone.
    """
    command, first, second, size, _, magic = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    if magic != command ^ _NO_COMMAND or size > MAX_PAYLOAD:
        raise ProtocolError("no message of adb")
    return Message(command, first, second, await reader.readexactly(size))
