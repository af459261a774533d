"""Starts, lists and stops emulated boards: one process group each, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from shuffledeploy.compiler.cores import DEFAULT_CORE, ArmCore
from shuffledeploy.deploy.board.guests import find_core
from shuffledeploy.deploy.board.places import state_folder
from shuffledeploy.deploy.board.qemu import Emulator, ensure_emulator
from shuffledeploy.deploy.board.sysroot import ensure_root, guest_command
from shuffledeploy.deploy.on_device.native_server import NativeServer, ensure_server
from shuffledeploy.model.errors import Failure, UsageError
from shuffledeploy.model.scratch import removal_at_our_end

HOST = "127.0.0.1"
_READY_S = 120.0


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
        return _start_ticks(self.pid) == self.started


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
    folder = state_folder() / secrets.token_hex(4)
    (folder / "tmp").mkdir(parents=True)
    options = ["--port", str(port)] + (["--tracker", tracker, "--key", key] if tracker else [])
    process = None
    remove = (lambda: None) if background else removal_at_our_end(folder)
    try:
        process = _launch(emulator, server, model, folder, options, background)
        found = _wait_until_ready(process, folder / "log")
        board = Board(
            process.pid, _start_ticks(process.pid), found, core, tracker, key, str(folder)
        )
        (folder / "board.json").write_text(json.dumps(asdict(board)))
    except BaseException:
        if process:
            _kill_group(process.pid)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)
        remove()
        raise
    _REMOVALS[board.pid] = remove
    return board


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
    if board.is_running:
        _kill_group(board.pid)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(board.pid, 0)
    deadline = time.monotonic() + 5
    while board.is_running and time.monotonic() < deadline:
        time.sleep(0.02)
    _LAUNCHED.pop(board.pid, None)
    shutil.rmtree(board.folder, ignore_errors=True)
    _REMOVALS.pop(board.pid, lambda: None)()


def list_boards() -> list[Board]:
    """Return the running boards; what is left of dead ones is removed."""
    boards = []
    for record in sorted(state_folder().glob("*/board.json")):
        try:
            board = Board(**json.loads(record.read_text()))
        except (OSError, ValueError, TypeError):
            continue
        if board.is_running:
            boards.append(board)
        else:
            shutil.rmtree(record.parent, ignore_errors=True)
    _remove_unfinished()
    return boards


def _remove_unfinished() -> None:
    """Remove folders of boards whose program was killed before they were ready."""
    for folder in state_folder().glob("*"):
        with contextlib.suppress(OSError):
            is_old = time.time() - folder.stat().st_mtime > 2 * _READY_S
            if is_old and not (folder / "board.json").exists():
                shutil.rmtree(folder, ignore_errors=True)


def find_board(pid: int) -> Board:
    """Return a running board by its process id.

    Raises
    ------
    UsageError
        When there is no such board; names those that run.
    """
    boards = list_boards()
    for board in boards:
        if board.pid == pid:
            return board
    known = ", ".join(str(board.pid) for board in boards) or "none"
    raise UsageError(f"no emulated board has process id {pid} (running: {known})")


# Keeps our end of each board's pipe open: the board ends when it closes.
_LAUNCHED: dict[int, subprocess.Popen[bytes]] = {}
# Removes the folder of each board that ends with this program.
_REMOVALS: dict[int, Callable[[], None]] = {}


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
        host, _, number = tracker.rpartition(":")
        if not host or not number.isdecimal():
            raise UsageError(f"'{tracker}' is no tracker; give HOST:PORT")
        try:
            socket.create_connection((host, int(number)), timeout=5).close()
        except (OSError, OverflowError) as error:
            raise Failure(
                f"no tracker answers at {tracker} ({error}); start one with"
                " 'python -m tvm.exec.rpc_tracker'"
            ) from error


def _launch(
    emulator: Emulator, server: NativeServer, core: ArmCore, folder: Path, options: list[str],
    background: bool,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start QEMU with the server that devices run."""
    counts, temporary = folder / "counts", folder / "tmp"
    program = [
        *server.command, "--emulated", "--counts", str(counts), "--work", str(temporary), *options,
        *([] if background else ["--watch"]),
    ]  # fmt: skip
    command = guest_command(emulator, core, program, root=ensure_root(core), counts=counts)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL if background else subprocess.PIPE, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True, env=emulator.environment(),
            cwd=server.folder,
        )  # fmt: skip
    _LAUNCHED[process.pid] = process
    return process


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> int:
    """Return the port on which the board came up."""
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        lines = log.read_text(errors="replace").splitlines()
        for line in lines:
            if line.startswith("ready "):
                return int(line.split()[1])
        if process.poll() is not None:
            last = lines[-1] if lines else f"exit status {process.returncode}"
            raise Failure(f"the emulated board did not come up: {last}")
        time.sleep(0.05)
    raise Failure(f"the emulated board did not come up within {_READY_S:.0f} s")


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _start_ticks(pid: int) -> int:
    """Return when a process started, -1 if it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return -1
    # The name in parentheses may hold anything: the fixed fields follow its last one.
    fields = text.rpartition(")")[2].split()
    return -1 if fields[0] in "ZX" else int(fields[19])
