"""Starts, lists and stops emulated phones; each has an adb server of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from shuffledeploy.deploy.board.guests import find_core
from shuffledeploy.deploy.board.kept_processes import Launch, end, is_running, keep, list_kept
from shuffledeploy.deploy.board.places import phones_folder
from shuffledeploy.deploy.phone.adb_program import find_adb
from shuffledeploy.deploy.phone.emulated_phone.phone_system import ensure_phone_files
from shuffledeploy.deploy.phone.emulated_phone.phone_traits import PhoneTraits
from shuffledeploy.model.folders import SEARCH_PATH

LOOPBACK = "127.0.0.1"
_MODULE = "shuffledeploy.deploy.phone.emulated_phone.phone_server"


@dataclass(frozen=True)
class PhoneProcess:
    """A running emulated phone.

    Attributes
    ----------
    pid, started : int
        Its process, and when that started, in the kernel's ticks.
    port : int
        Where its side of adb listens, on 127.0.0.1.
    adb_port : int
        Where the adb server that knows it listens.
    core : str
        The core it emulates.
    folder : str
        Its root, its log, the keys of its adb server.
    """

    pid: int
    started: int
    port: int
    adb_port: int
    core: str
    folder: str

    @property
    def serial(self) -> str:
        """Return what adb calls it."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def name(self) -> str:
        """Return the device name by which every command finds it."""
        return f"adb:{self.serial}"

    @property
    def is_running(self) -> bool:
        """Whether it still lives."""
        return is_running(self)

    def client_settings(self) -> dict[str, str]:
        """Return the environment by which an adb client finds its adb server."""
        # By this spelling of the host a client never starts a server where it finds none.
        return private_settings(Path(self.folder), f"{LOOPBACK}:{self.adb_port}")


def private_settings(folder: Path, address: str) -> dict[str, str]:
    """Return the environment of an adb server that knows emulated phones alone, and its clients.

    The user's keys, their server and the phones on their cables are left alone.

    Parameters
    ----------
    folder : Path
        The phone's.
    address : str
        The server's, ``HOST:PORT``.
    """
    return {
        "ADB_SERVER_SOCKET": f"tcp:{address}",
        "ADB_USB": "0",
        "ADB_EMU": "0",
        "ADB_MDNS": "0",
        "ADB_LOCAL_TRANSPORT_MAX_PORT": "5554",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
    }


def start_phone(traits: PhoneTraits = PhoneTraits(), *, background: bool = False) -> PhoneProcess:
    """Start an emulated phone, and wait until its adb server knows it (about a second).

    Parameters
    ----------
    traits : PhoneTraits
        What it is.
    background : bool
        Let it outlive this program. Otherwise it ends with it, however that ends.

    Returns
    -------
    PhoneProcess
        The phone; end it with :func:`stop_phone`.

    Raises
    ------
    UsageError
        When the core cannot be emulated.
    Failure
        When it cannot be built, or does not come up: with its last words.
    """
    find_core(traits.core)
    ensure_phone_files()
    find_adb()
    list_phones()

    def plan(folder: Path) -> Launch:
        (folder / "home").mkdir()
        watch = [] if background else ["--watch"]
        command = [sys.executable, "-m", _MODULE, str(folder), json.dumps(asdict(traits)), *watch]
        # First ours, for it may be a checkout; then what the user's program finds, too.
        paths = filter(None, (str(SEARCH_PATH), os.environ.get("PYTHONPATH")))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        return Launch(command, environment, "the emulated phone", background, folder / "tmp")

    def record(pid: int, started: int, folder: str, words: list[str]) -> PhoneProcess:
        port, adb_port = map(int, words)
        return PhoneProcess(pid, started, port, adb_port, traits.core, folder)

    return keep(phones_folder(), plan, record)


@contextmanager
def running_phone(traits: PhoneTraits = PhoneTraits()) -> Iterator[PhoneProcess]:
    """Give an emulated phone for the length of a ``with`` block."""
    phone = start_phone(traits)
    try:
        yield phone
    finally:
        stop_phone(phone)


def stop_phone(phone: PhoneProcess) -> None:
    """End a phone, its adb server and all that runs on it. Harmless if it is gone."""
    end(phone)


def pull_cable(phone: PhoneProcess) -> None:
    """Let a phone be gone for its adb server, for good."""
    os.kill(phone.pid, signal.SIGUSR1)


def list_phones() -> list[PhoneProcess]:
    """Return the running phones; what is left of dead ones is removed."""
    return list_kept(phones_folder(), PhoneProcess)
