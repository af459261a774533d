"""A device is one word: ``emulated``, ``local``, ``adb``, ``ssh://``, ``rpc://``..."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from shuffledeploy.compiler.cores import DEFAULT_CORE
from shuffledeploy.deploy.board.guests import find_core
from shuffledeploy.deploy.estimate.boards import Board
from shuffledeploy.model.errors import UsageError

DEVICE_HELP = (
    "emulated or emulated:CORE (a Cortex-A board under QEMU, started and ended for you),"
    " local (this machine), adb or adb:SERIAL (an Android phone), ssh://[USER@]HOST[:PORT] (a"
    " board that your ssh reaches), rpc://HOST:PORT (a board running"
    " 'python -m tvm.exec.rpc_server --port PORT'), or tracker://HOST:PORT/KEY"
)
_REMOTE = re.compile(
    r"(?P<kind>rpc|tracker)://(?P<host>[^\s:/]+):(?P<port>\d{1,5})(/(?P<key>\S+))?"
)
# Neither may begin like an option: both are handed to ssh.
_SSH = re.compile(r"ssh://((?P<user>[\w.][\w.+-]*)@)?(?P<host>[\w.][\w.-]*)(:(?P<port>\d{1,5}))?")
# What adb calls phones: letters of USB serials, of addresses, of services found by their name.
_ADB = re.compile(r"adb(:(?P<serial>[\w\[][\w.:\[\]%()-]{0,199}))?")

CORE_HELP = (
    "where a phone or a board by ssh runs: big (its fastest core, the default), little, any, or"
    " its number"
)
_CORES = ("big", "little", "any")

EMULATED_TIME = (
    "{} is emulated: the time that an emulator takes says nothing of the core."
    " Leave out --score, or name a real --device"
)


@dataclass(frozen=True)
class DeviceName:
    """A device's name, taken apart.

    Attributes
    ----------
    text : str
        As the user wrote it.
    kind : str
        ``emulated``, ``local``, ``adb``, ``ssh``, ``rpc`` or ``tracker``.
    core : str
        The core to emulate, for ``emulated``.
    host, port : str, int
        Where the board or the tracker listens; of ``ssh`` the host as ssh knows it, and 0 for the
        port that ssh chooses.
    key : str
        The board's name at the tracker.
    user : str
        The board's user, for ``ssh``; empty for the one that ssh chooses.
    serial : str
        What adb calls the phone; empty for the only one.
    """

    text: str
    kind: Literal["emulated", "local", "adb", "ssh", "rpc", "tracker"]
    core: str = ""
    host: str = ""
    port: int = 0
    key: str = ""
    user: str = ""
    serial: str = ""

    @property
    def is_pushed_to(self) -> bool:
        """Whether it is a device to which our server is pushed."""
        return self.kind in ("adb", "ssh")


def parse_device_name(text: str, *, default_core: str = DEFAULT_CORE) -> DeviceName:
    """Take a device's name apart, so that a mistake shows before any work is done.

    Raises
    ------
    UsageError
        When it is malformed, or names a core that cannot be emulated.
    """
    if text == "local":
        return DeviceName(text, "local")
    kind, separator, core = text.partition(":")
    if kind == "emulated" and (core or not separator):
        return DeviceName(text, "emulated", core=find_core(core or default_core).name)
    if phone := _ADB.fullmatch(text):
        return DeviceName(text, "adb", serial=phone["serial"] or "")
    if found := _SSH.fullmatch(text):
        port = _port(text, found["port"]) if found["port"] else 0
        return DeviceName(text, "ssh", host=found["host"], port=port, user=found["user"] or "")
    found = _REMOTE.fullmatch(text)
    if not found:
        raise UsageError(f"'{text}' names no device; give {DEVICE_HELP}")
    port = _port(text, found["port"])
    if found["kind"] == "tracker":
        if not found["key"]:
            raise UsageError(f"'{text}' lacks the board's key: tracker://HOST:PORT/KEY")
        return DeviceName(text, "tracker", host=found["host"], port=port, key=found["key"])
    if found["key"]:
        raise UsageError(f"'{text}': a board's name ends at its port: rpc://HOST:PORT")
    return DeviceName(text, "rpc", host=found["host"], port=port)


def _port(text: str, digits: str) -> int:
    port = int(digits)
    if not 0 < port < 65536:
        raise UsageError(f"'{text}': {port} is no port; ports are 1 to 65535")
    return port


def require_core_name(core: str) -> None:
    """Refuse what is no core.

    Raises
    ------
    UsageError
        If it is none.
    """
    if core not in _CORES and not core.isdecimal():
        raise UsageError(f"'{core}' is no core: give {', '.join(_CORES)} or its number")


def require_core(core: str | None, name: DeviceName) -> None:
    """Refuse a core that no session can be pinned to; None is no wish.

    Raises
    ------
    UsageError
        If it is no core, or the device runs a server that others have started.
    """
    if core is None:
        return
    require_core_name(core)
    if not name.is_pushed_to:
        raise UsageError(
            f"sessions of {name.text} cannot be pinned to a core from here: --core goes with adb"
            " and ssh"
        )


def device_of_board(board: Board, device: str | None) -> str:
    """Name the emulated device of a board's core, or the device that is named, if it has that core.

    Raises
    ------
    UsageError
        If an emulated device of another core is named; others tell their core when they are
        reached.
    """
    emulated = f"emulated:{board.core}"
    if device is None:
        return emulated
    named = parse_device_name(device, default_core=board.core)
    if named.kind == "emulated" and named.core != board.core:
        raise UsageError(f"{board.name} has a {board.core}: name --device {emulated}")
    return emulated if named.kind == "emulated" else device
