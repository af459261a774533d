"""Starts, lists and stops emulated boards."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.compiler.cores import DEFAULT_CORE, ArmCore
from shuffledeploy.deploy.board.guests import find_core
from shuffledeploy.deploy.board.kept_processes import Launch, end, is_running, keep, list_kept
from shuffledeploy.deploy.board.places import state_folder
from shuffledeploy.deploy.board.qemu import Emulator, ensure_emulator
from shuffledeploy.deploy.board.sysroot import ensure_root, guest_command
from shuffledeploy.deploy.devices.tracker_address import require_tracker
from shuffledeploy.deploy.on_device.native_server import NativeServer, ensure_server
from shuffledeploy.model.errors import Failure

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Board:
    """A running emulated board.

    Attributes
    ----------
    pid : int
        The server's process, which leads a process group of its own.
    started : int
        When it started, in the kernel's ticks: tells it from a later process of the same number.
    port : int
        Where it listens, on 127.0.0.1.
    core : str
        The core it emulates.
    tracker, key : str
        Where it is registered, as what; both empty if nowhere.
    folder : str
        Its log, its temporary files.
    """

    pid: int
    started: int
    port: int
    core: str
    tracker: str
    key: str
    folder: str

    @property
    def name(self) -> str:
        """Return the device name by which every command finds it."""
        return f"rpc://{HOST}:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether its server still lives."""
        return is_running(self)


def start_board(
    core: str = DEFAULT_CORE, *, port: int = 0, tracker: str = "", key: str = "",
    background: bool = False,
) -> Board:  # fmt: skip
    """Start an emulated board and wait until it answers (a second at most).

    Parameters
    ----------
    core : str
        The core to emulate.
    port : int
        Where to listen on 127.0.0.1; 0 takes a free port.
    tracker, key : str
        ``HOST:PORT`` of an RPC tracker, and the name to register under.
    background : bool
        Let the board outlive this program. Otherwise it ends with it, however that ends.

    Returns
    -------
    Board
        The running board; end it with :func:`stop_board`.

    Raises
    ------
    UsageError
        When the core cannot be emulated.
    Failure
        When the board cannot be built, or does not come up: with its last words.
    """
    model = find_core(core)
    _check_addresses(port, tracker)
    emulator, server = ensure_emulator(), ensure_server()
    list_boards()
    options = ["--port", str(port)] + (["--tracker", tracker, "--key", key] if tracker else [])

    def plan(folder: Path) -> Launch:
        return _launch(emulator, server, model, folder, options, background)

    def record(pid: int, started: int, folder: str, words: list[str]) -> Board:
        return Board(pid, started, int(words[0]), core, tracker, key, folder)

    return keep(state_folder(), plan, record)


@contextmanager
def running_board(core: str = DEFAULT_CORE, *, tracker: str = "", key: str = "") -> Iterator[Board]:
    """Give a board for the length of a ``with`` block."""
    board = start_board(core, tracker=tracker, key=key)
    try:
        yield board
    finally:
        stop_board(board)


def stop_board(board: Board) -> None:
    """End a board and its sessions, and remove its files. Harmless if it is gone."""
    end(board)


def list_boards() -> list[Board]:
    """Return the running boards; what is left of dead ones is removed."""
    return list_kept(state_folder(), Board)


def _check_addresses(port: int, tracker: str) -> None:
    """Refuse now what the board would only find out after its start of seconds."""
    if port:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except (OSError, OverflowError) as error:
                raise Failure(
                    f"port {port} of {HOST} cannot be used ({error}); 0 takes a free one"
                ) from error
    if tracker:
        require_tracker(tracker)


def _launch(
    emulator: Emulator, server: NativeServer, core: ArmCore, folder: Path, options: list[str],
    background: bool,
) -> Launch:  # fmt: skip
    """Give how QEMU is started with the server that devices run."""
    counts, temporary = folder / "counts", folder / "tmp"
    program = [
        *server.command, "--emulated", "--counts", str(counts), "--work", str(temporary), *options,
        *([] if background else ["--watch"]),
    ]  # fmt: skip
    command = guest_command(emulator, core, program, root=ensure_root(core), counts=counts)
    what = "the emulated board"
    return Launch(command, emulator.environment(), what, background, server.folder)
