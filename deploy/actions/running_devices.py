"""Emulated boards and phones that are started and kept; phones that are offered and cleaned."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Sequence

from shuffledeploy.deploy.board.kept_processes import end, is_running
from shuffledeploy.deploy.board.places import CONSOLE
from shuffledeploy.deploy.devices.board_process import Board, list_boards, start_board
from shuffledeploy.deploy.devices.tracker_address import parse_tracker, require_tracker
from shuffledeploy.deploy.phone.adb_client import PhoneLink
from shuffledeploy.deploy.phone.adb_program import find_adb
from shuffledeploy.deploy.phone.connected_phones import find_phone, find_phones
from shuffledeploy.deploy.phone.emulated_phone.phone_process import (
    PhoneProcess,
    list_phones,
    start_phone,
)
from shuffledeploy.deploy.phone.emulated_phone.phone_traits import PhoneTraits
from shuffledeploy.deploy.phone.phone_host import FOLDER, PhoneHost
from shuffledeploy.deploy.phone.tracked_phones import serve_phones
from shuffledeploy.deploy.remote.pushed_server import remove_pushed
from shuffledeploy.model.errors import Failure, UsageError

_THIS_MACHINE = ("127.0.0.1", "localhost")
_LOOK_EVERY_S = 0.2


def start(options: argparse.Namespace) -> int:
    """Start a board or a phone, and unless it goes to the background, wait for its end."""
    # A supervisor ends a command by SIGTERM: what it started must go too, in the same order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = _start_phone(options) if options.phone else _start_board(options)
    if options.background:
        return 0
    try:
        while is_running(started):
            time.sleep(_LOOK_EVERY_S)
    finally:
        was_running = is_running(started)
        end(started)
    if not was_running:
        raise Failure(f"{_what(started)} ended by itself (process {started.pid})")
    return 0


def _start_board(options: argparse.Namespace) -> Board:
    if options.key and not options.tracker:
        raise UsageError("--key names the board at a tracker: give --tracker HOST:PORT too")
    with CONSOLE.status(f"starting an emulated {options.core}"):
        board = start_board(
            options.core, port=options.port, tracker=options.tracker,
            key=(options.key or options.core) if options.tracker else "",
            background=options.background,
        )  # fmt: skip
    print(f"{board.name}  emulated {board.core}, process {board.pid}", flush=True)
    if board.tracker:
        print(f"tracker://{board.tracker}/{board.key}", flush=True)
    return board


def _start_phone(options: argparse.Namespace) -> PhoneProcess:
    if options.tracker or options.key or options.port:
        raise UsageError(
            "--phone takes no --port, --tracker or --key: start it, then offer it to a tracker with"
            " 'device.py adb serve'"
        )
    with CONSOLE.status("starting an emulated phone"):
        phone = start_phone(PhoneTraits(core=options.core), background=options.background)
    settings = phone.client_settings()
    print(
        f"{phone.name}  emulated phone with a {phone.core}, process {phone.pid}\n"
        f"use it as --device {phone.name}; with adb itself:\n"
        f"  export ADB_SERVER_SOCKET={settings['ADB_SERVER_SOCKET']}\n"
        f"  {find_adb().executable} -s {phone.serial} shell",
        flush=True,
    )
    return phone


def list_running() -> int:
    """Print what runs; return the exit status."""
    for board in list_boards():
        where = f"  tracker://{board.tracker}/{board.key}" if board.tracker else ""
        print(f"{board.pid}  {board.name}  {board.core}{where}")
    for phone in list_phones():
        print(f"{phone.pid}  {phone.name}  {phone.core}, an emulated phone")
    if not _running():
        print("no emulated board or phone is running")
    return 0


def stop(which: str) -> int:
    """End a board or a phone by its process id, or ``all``; return the exit status.

    Raises
    ------
    UsageError
        If that is no process id, or that of nothing that runs; names what runs.
    """
    if which != "all" and not which.isdecimal():
        raise UsageError(f"'{which}' is no process id; give one of 'device.py list', or all")
    running = _running()
    chosen = [one for one in running if which in ("all", str(one.pid))]
    if not chosen and which != "all":
        known = ", ".join(str(one.pid) for one in running) or "none"
        raise UsageError(f"no emulated board or phone has process id {which} (running: {known})")
    for one in chosen:
        end(one)
        print(f"stopped {one.name} (process {one.pid})")
    return 0


def clean_phone(serial: str) -> int:
    """Remove what was pushed to a phone; return the exit status."""
    link = find_phone(serial)
    remove_pushed(PhoneHost(link))
    print(f"removed {FOLDER} from {link.name}")
    return 0


def serve(serials: Sequence[str], tracker: str, key: str, core: str) -> int:
    """Offer phones, all that can be used where none is named, to a tracker until the end.

    Raises
    ------
    UsageError
        If the tracker is not on this machine.
    Failure
        If there is no tracker or no phone, or one cannot be used, or all are lost.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    host, port = parse_tracker(tracker)
    if host not in _THIS_MACHINE:
        raise UsageError(
            f"the tracker {tracker} is not on this machine, whose adb alone reaches the phones:"
            f" start one here, and give {_THIS_MACHINE[0]}:PORT"
        )
    require_tracker(tracker)
    links: list[PhoneLink] = [find_phone(serial) for serial in serials] or find_phones()
    # Where there is none, this says why.
    links = links or [find_phone()]
    serve_phones(links, port, key, core, lambda line: print(line, flush=True))
    return 0


def _running() -> list[Board | PhoneProcess]:
    return [*list_boards(), *list_phones()]


def _what(one: Board | PhoneProcess) -> str:
    return "the emulated phone" if isinstance(one, PhoneProcess) else "the emulated board"
