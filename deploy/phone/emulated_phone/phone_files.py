"""adb's transfer of files on the emulated phone: the service ``sync``.

Its requests are described in AOSP's ``packages/modules/adb/SYNC.TXT``, those of the second version
in its ``file_sync_protocol.h``.
"""

from __future__ import annotations

import os
import posixpath
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.deploy.phone.emulated_phone.adb_streams import AdbStream, StreamClosedError
from shuffledeploy.deploy.phone.emulated_phone.phone_system import WRITABLE

_REQUEST = struct.Struct("<4sI")
_STAT = struct.Struct("<3I")
# Error, device, inode, mode, links, user, group, size, three times.
_LONG_STAT = struct.Struct("<I2Q4IQ3q")
_LONGEST_PATH = 1024
_PIECE = 64 << 10


@dataclass(frozen=True)
class PhoneDisk:
    """The files of a phone.

    Attributes
    ----------
    root : Path
        Its root on this machine.
    room : int
        Bytes that may be pushed.
    """

    root: Path
    room: int

    def place(self, path: str) -> Path:
        """Return where a path of the phone lies; PermissionError where that is not on the phone."""
        inside = posixpath.normpath("/" + path).lstrip("/")
        place = self.root / inside
        if not place.parent.resolve().is_relative_to(self.root.resolve()):
            raise PermissionError(f"{path} is not on the phone")
        return place

    def writable(self, path: str) -> Path:
        """Return where a file may be written; PermissionError where adb's shell may not."""
        place = self.place(path)
        if not place.is_relative_to(self.root / WRITABLE.lstrip("/")) or place.is_symlink():
            raise PermissionError("Permission denied")
        return place

    def used(self) -> int:
        """Return how many bytes have been pushed."""
        pushed = self.root / WRITABLE.lstrip("/")
        return sum(file.lstat().st_size for file in pushed.rglob("*") if file.is_file())


async def serve_files(stream: AdbStream, disk: PhoneDisk) -> None:
    """Answer requests until the client ends."""
    try:
        while True:
            name, size = _REQUEST.unpack(await stream.read_exactly(_REQUEST.size))
            if name == b"QUIT" or size > _LONGEST_PATH:
                break
            path = (await stream.read_exactly(size)).decode(errors="replace")
            await _answer(stream, disk, name, path)
        await stream.close()
    except StreamClosedError:
        return


async def _answer(stream: AdbStream, disk: PhoneDisk, name: bytes, path: str) -> None:
    if name == b"STAT":
        await stream.write(name + _short_stat(disk, path))
    elif name in (b"STA2", b"LST2"):
        await stream.write(name + _long_stat(disk, path, follow=name == b"STA2"))
    elif name in (b"LIST", b"LIS2"):
        await _list(stream, disk, path, long=name == b"LIS2")
    elif name == b"SEND":
        await _receive(stream, disk, path)
    elif name == b"RECV":
        await _send(stream, disk, path)
    else:
        await _fail(stream, f"unknown command {name!r}")


async def _fail(stream: AdbStream, reason: str) -> None:
    text = reason.encode()
    await stream.write(_REQUEST.pack(b"FAIL", len(text)) + text)


def _short_stat(disk: PhoneDisk, path: str) -> bytes:
    try:
        found = disk.place(path).lstat()
    except OSError:
        return _STAT.pack(0, 0, 0)
    return _STAT.pack(found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))


def _long_stat(disk: PhoneDisk, path: str, *, follow: bool) -> bytes:
    try:
        place = disk.place(path)
        found = place.stat() if follow else place.lstat()
    except OSError as error:
        return _LONG_STAT.pack(error.errno or 1, *[0] * 10)
    return _LONG_STAT.pack(
        0, found.st_dev, found.st_ino, found.st_mode, found.st_nlink, found.st_uid, found.st_gid,
        found.st_size, int(found.st_atime), int(found.st_mtime), int(found.st_ctime),
    )  # fmt: skip


async def _list(stream: AdbStream, disk: PhoneDisk, path: str, *, long: bool) -> None:
    try:
        entries = sorted(entry.name for entry in disk.place(path).iterdir())
    except OSError:
        entries = []
    for entry in entries:
        whole, name = posixpath.join(path, entry), entry.encode()
        if long:
            head = b"DNT2" + _long_stat(disk, whole, follow=False)
        else:
            head = b"DENT" + _short_stat(disk, whole)
        await stream.write(head + struct.pack("<I", len(name)) + name)
    await stream.write(b"DONE" + bytes((_LONG_STAT.size if long else _STAT.size) + 4))


async def _receive(stream: AdbStream, disk: PhoneDisk, target: str) -> None:
    """Take a pushed file; a client sends all of it, even where it is refused."""
    path, _, mode = target.rpartition(",")
    refused, room = "", disk.room - disk.used()
    pieces = []
    while True:
        name, size = _REQUEST.unpack(await stream.read_exactly(_REQUEST.size))
        if name == b"DONE":
            break
        if name != b"DATA" or size > _PIECE:
            await _fail(stream, "no piece of a file")
            return
        piece = await stream.read_exactly(size)
        room -= size
        if room >= 0:
            pieces.append(piece)
        else:
            refused = "write failed: No space left on device"
            pieces.clear()
    try:
        refused = refused or _write(disk.writable(path), b"".join(pieces), int(mode or "0"))
    except (OSError, ValueError) as error:
        refused = f"couldn't create file: {getattr(error, 'strerror', None) or error}"
    if refused:
        await _fail(stream, refused)
    else:
        await stream.write(_REQUEST.pack(b"OKAY", 0))


def _write(place: Path, content: bytes, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "symbolic links are not taken"
    place.parent.mkdir(parents=True, exist_ok=True)
    # Another file of that name may be running: it keeps its own content.
    place.unlink(missing_ok=True)
    place.write_bytes(content)
    place.chmod(0o644 | mode & 0o111)
    return ""


async def _send(stream: AdbStream, disk: PhoneDisk, path: str) -> None:
    try:
        place = disk.place(path).resolve()
        if not place.is_relative_to(disk.root.resolve()):
            raise PermissionError("Permission denied")
        descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        await _fail(stream, error.strerror or str(error))
        return
    with os.fdopen(descriptor, "rb") as file:
        try:
            while piece := file.read(_PIECE):
                await stream.write(_REQUEST.pack(b"DATA", len(piece)) + piece)
        except IsADirectoryError as error:
            await _fail(stream, error.strerror or str(error))
            return
    await stream.write(_REQUEST.pack(b"DONE", 0))
