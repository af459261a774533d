"""Opens a device by its name; everything that runs compiled networks goes through here."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import tvm
from tvm import rpc

from shuffledeploy.compiler.bundle.elf import machine_of
from shuffledeploy.compiler.cores import DEFAULT_CORE
from shuffledeploy.deploy.devices import sessions
from shuffledeploy.deploy.devices.board_process import Board
from shuffledeploy.deploy.devices.device_information import (
    DeviceInformation,
    ask_local,
    ask_native,
    ask_stock,
)
from shuffledeploy.deploy.devices.device_names import (
    DeviceName,
    parse_device_name,
    require_core,
)
from shuffledeploy.deploy.devices.reached_devices import Reached, reached
from shuffledeploy.deploy.devices.tvm_rpc_edges import DESCRIBE, quieten_servers
from shuffledeploy.deploy.estimate.caches import Caches
from shuffledeploy.deploy.estimate.elf_symbols import read_functions
from shuffledeploy.deploy.estimate.instruction_counts import InstructionCounts, fold
from shuffledeploy.model.errors import Failure, UsageError

CALL_TIMEOUT_S = 600.0
_ENDED_S = 1.0


@dataclass(frozen=True)
class Device:
    """A device that is ready to run.

    Attributes
    ----------
    name : str
        As the user gave it.
    information : DeviceInformation
        What it tells of itself.
    session : tvm.rpc.RPCSession
        TVM's session with it (a ``LocalSession`` for this machine).
    board : Board or None
        The emulated board's process, when this program started it.
    address : str
        ``HOST:PORT`` of the board itself, which a tracker's name does not tell; maybe empty.
    """

    name: str
    information: DeviceInformation
    session: rpc.RPCSession
    board: Board | None = None
    address: str = ""
    _loaded: dict[Path, str] = field(default_factory=dict, repr=False)
    _uploads: Iterator[int] = field(default_factory=itertools.count, repr=False)

    @property
    def is_emulated(self) -> bool | None:
        """Whether its times mean nothing; None where the device does not tell."""
        return self.information.is_emulated

    @property
    def is_local(self) -> bool:
        """Whether it is this very process."""
        return isinstance(self.session, rpc.LocalSession)

    @property
    def can_count(self) -> bool:
        """Whether it counts instructions."""
        return self.information.can_count

    def upload_and_load(self, path: Path) -> tvm.runtime.Module:
        """Send a library to the device and load it there.

        Raises
        ------
        UsageError
            When there is no such file.
        Failure
            When the device refuses it, such as a library for another architecture.
        """
        remote = self.upload(path)
        try:
            module = self.session.load_module(remote)
        except RuntimeError as error:
            if remote not in str(error):
                raise
            reason = self._refusal(path, error)
            raise Failure(f"{self.name} cannot load {path.name}: {reason}") from error
        return module

    def upload(self, path: Path) -> str:
        """Send a library to the device, which loads it when a function of it is called.

        Returns
        -------
        str
            Its name there.

        Raises
        ------
        UsageError
            When there is no such file.
        """
        if not path.is_file():
            raise UsageError(f"there is no library {path}")
        # A name of its own each time: overwriting a loaded library would crash the session.
        remote = f"{path.stem}-{next(self._uploads)}{path.suffix}"
        if self.board is None:
            self.session.upload(str(path), remote)
        else:
            # Received under emulation a library comes at 3 MB/s: a board of ours shares this disk.
            place = self.session.get_function("tvm.rpc.server.workpath")(remote)
            shutil.copyfile(path, str(place))
        self._loaded[path.resolve()] = remote
        return remote

    def _refusal(self, path: Path, error: Exception) -> str:
        """Say why a library was refused: the loader itself calls a foreign one "not found"."""
        with path.open("rb") as file:
            built_for = machine_of(file.read(20))
        here = self.information.architecture
        if built_for is None:
            return "it is no shared library"
        if here and built_for != here:
            return f"it is built for {built_for}, the device is {here}"
        return str(error).strip().splitlines()[-1]

    def simulate_caches(self, caches: Caches) -> None:
        """Have an emulated board simulate caches from now on, empty ones at first.

        What is counted afterwards tells of memory too, and takes several times as long.

        Raises
        ------
        UsageError
            When the device does not count, or its server is of another release.
        """
        if not self.can_count:
            raise UsageError(f"{self.name} simulates no caches; an emulated board does")
        try:
            simulate = self.session.get_function("shuffledeploy.simulate_caches")
        except AttributeError:
            raise UsageError(
                f"{self.name} simulates no caches: its server is of another release, start it anew"
            ) from None
        simulate(*caches.shapes)

    def count(self, call: Callable[[], object], library: Path | None) -> InstructionCounts:
        """Count the instructions that a call executes on an emulated board.

        Parameters
        ----------
        call : Callable
            Runs something on the device, such as one warmed inference. Run once.
        library : Path or None
            A library that :meth:`upload_and_load` loaded: counts only its instructions, exactly
            repeatable. None counts the whole process, the RPC included, which varies a little.

        Returns
        -------
        InstructionCounts
            In total, by symbol, by kernel.

        Raises
        ------
        UsageError
            When the device does not count, or the library is not loaded on it.
        """
        if not self.can_count:
            raise UsageError(f"{self.name} cannot count instructions; an emulated board can")
        remote = self._loaded.get(library.resolve()) if library else ""
        if remote is None:
            raise UsageError(f"{library} is not loaded on {self.name}: upload and load it first")
        if library:
            read_functions(library)
        begin = self.session.get_function("shuffledeploy.count_begin")
        end = self.session.get_function("shuffledeploy.count_end")
        base = int(begin(remote))
        call()
        try:
            return fold(str(end()), base, library)
        except (ValueError, TypeError) as error:
            raise Failure(f"{self.name}: what it counted cannot be read: {error}") from error


@contextmanager
def open_device(
    name: str, *, default_core: str = DEFAULT_CORE, timeout_s: float = CALL_TIMEOUT_S,
    pinned_to: str | None = None,
) -> Iterator[Device]:  # fmt: skip
    """Give a device for the length of a ``with`` block.

    Parameters
    ----------
    name : str
        ``emulated``, ``emulated:CORE``, ``local``, ``adb``, ``adb:SERIAL``,
        ``ssh://[USER@]HOST[:PORT]``, ``rpc://HOST:PORT`` or ``tracker://HOST:PORT/KEY``.
    default_core : str
        The core of plain ``emulated``.
    timeout_s : float
        How long one call on the device may take.
    pinned_to : str, optional
        The core to which the session is pinned where our server is pushed: ``big`` (what is taken
        where nothing is said), ``little``, a number, ``any``.

    Yields
    ------
    Device
        The device. Its session ends with the block; what was started for it does too.

    Raises
    ------
    UsageError
        When the name is malformed or that of several phones, or the device pins no sessions.
    Failure
        When the device is not there, cannot be started, dies or hangs, in or before the block.
    """
    parsed = parse_device_name(name, default_core=default_core)
    with open_named(parsed, timeout_s=timeout_s, pinned_to=pinned_to) as device:
        yield device


@contextmanager
def open_named(
    name: DeviceName, *, timeout_s: float = CALL_TIMEOUT_S, pinned_to: str | None = None
) -> Iterator[Device]:
    """Give a device whose name was taken apart; see :func:`open_device`."""
    require_core(pinned_to, name)
    if name.kind == "local":
        quieten_servers()
        yield Device(name.text, ask_local(), rpc.LocalSession())
        return
    with reached(name, pinned_to) as place:
        connection = sessions.connect_board(place.name, timeout_s)
        try:
            yield _describe(place.name, connection, place.board)
        except (UsageError, Failure):
            raise
        except Exception as error:
            reason = _why_lost(connection, place, error)
            if reason is None:
                raise
            raise Failure(f"{name.text}: {reason}") from error
        finally:
            sessions.close(connection)


def attach(name: DeviceName, timeout_s: float) -> tuple[Device, sessions.Connection]:
    """Begin a session with a board that is kept until `sessions.close` ends it.

    Parameters
    ----------
    name : DeviceName
        Of kind ``rpc`` or ``tracker``.
    timeout_s : float
        How long one call may take.

    Raises
    ------
    Failure
        When the board is not there.
    """
    connection = sessions.connect_board(name, timeout_s)
    try:
        return _describe(name, connection, None), connection
    except Exception as error:
        reason = sessions.why_lost(connection, error)
        sessions.close(connection)
        raise Failure(f"{name.text}: {reason or error}") from error


def _describe(name: DeviceName, connection: sessions.Connection, board: Board | None) -> Device:
    """Ask a connected board what it is."""
    session, address = connection.session, connection.address
    try:
        session.get_function(DESCRIBE)
    except AttributeError:
        return Device(name.text, ask_stock(session), session, address=address)
    information = ask_native(session, board.core if board else None)
    return Device(name.text, information, session, board, address)


def _why_lost(connection: sessions.Connection, place: Reached, error: Exception) -> str | None:
    """Say in one line why a device was lost, None if it was not."""
    lost = sessions.why_lost(connection, error)
    # What was started for it knows better why it is gone than its socket, but not at once.
    return place.why_ended(_ENDED_S if lost else 0) or lost
