"""The RPC server on the emulated board: TVM's own, plus what the board can tell of itself.

Started by ``board_process.py`` under QEMU with the board's Python; imports nothing of this project
but what lies here, since none of it is on the board.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import signal
import socket
import threading
import time
from pathlib import Path

# As in counter.c and executed_blocks.py, which the board does not have.
MARK_BEGIN = 7001
MARK_END = 7002
_PR_SET_PDEATHSIG = 1
_EVERYTHING = (0, 2**63)

_libc = ctypes.CDLL(None, use_errno=True)


def address_range(library: str) -> tuple[int, int]:
    """Return where a library that this process loaded lies: first byte, first byte after it."""
    bounds = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and Path(fields[5]).name == library:
            bounds += [int(edge, 16) for edge in fields[0].split("-")]
    if not bounds:
        raise RuntimeError(f"this session has not loaded {library}")
    return min(bounds), max(bounds)


def count_begin(library: str) -> int:
    """Start counting in a library, or in everything if the name is empty; return its address."""
    low, high = address_range(library) if library else _EVERYTHING
    _libc.syscall(ctypes.c_long(MARK_BEGIN), ctypes.c_long(low), ctypes.c_long(high))
    return low


def count_end(prefix: str) -> str:
    """Stop counting; return the plugin's report."""
    _libc.syscall(ctypes.c_long(MARK_END))
    # Under user-mode emulation the guest's process id is the host's.
    report = Path(f"{prefix}.{os.getpid()}")
    text = report.read_text()
    report.unlink()
    return text


def describe() -> str:
    """Return what this board is, as JSON."""
    import tvm

    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in cpuinfo if ":" in line)
    values = {key.strip(): value.strip() for key, value in fields.items()}
    return json.dumps(
        {
            "tvm_version": tvm.__version__,
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "features": values.get("Features", "").split(),
            "part": values.get("CPU part", ""),
            "pid": os.getpid(),
        }
    )


def register(counts: str) -> None:
    """Make this board's functions callable over RPC."""
    import tvm_ffi

    tvm_ffi.register_global_func("shuffledeploy.describe", describe)
    tvm_ffi.register_global_func("shuffledeploy.count_begin", count_begin)
    tvm_ffi.register_global_func("shuffledeploy.count_end", lambda: count_end(counts))


def _die_with_parent() -> None:
    """Let a session end with the server, even if that is killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _watch(descriptor: int) -> None:
    """End the whole board when the program that started it is gone: the pipe is then closed."""
    os.read(descriptor, 1)
    os.killpg(0, signal.SIGKILL)


def outlive_crashes() -> None:
    """Keep TVM's server loop going when a session crashed (a bad kernel): by itself it ends."""
    from tvm.rpc import server as rpc

    serve_session, home = rpc._serving, Path.cwd()

    def serving(
        sock: socket.socket, address: object, options: dict[str, float], library: str | None
    ) -> None:
        try:
            serve_session(sock, address, options, library)
        except RuntimeError as error:
            print(f"session lost: {error}", flush=True)
            os.chdir(home)
            sock.close()

    rpc._serving = serving


def wait_until_registered(tracker: tuple[str, int], key: str, port: int) -> None:
    """Return once the tracker lists this board."""
    from tvm import rpc

    mine = ("server:" + key, port)
    while True:
        session = rpc.connect_tracker(*tracker)
        servers = session.summary()["server_info"]
        session.close()
        if mine in [(server["key"], server["addr"][1]) for server in servers]:
            return
        time.sleep(0.1)


def main() -> None:
    """Bind, register, say that the board is ready, serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tracker", default="")
    parser.add_argument("--key", default="")
    parser.add_argument("--counts", required=True)
    parser.add_argument("--watch", type=int, default=-1)
    options = parser.parse_args()

    os.register_at_fork(after_in_child=_die_with_parent)
    if options.watch >= 0:
        threading.Thread(target=_watch, args=(options.watch,), daemon=True).start()
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", options.port))
    sock.listen(8)
    register(options.counts)
    host, _, number = options.tracker.rpartition(":")
    tracker = (host, int(number)) if options.tracker else None
    from tvm.rpc import server as rpc

    outlive_crashes()
    address, port = sock.getsockname()
    loop = threading.Thread(
        target=rpc._listen_loop, args=(sock, port, options.key, tracker, None, address)
    )
    loop.start()
    if tracker:
        wait_until_registered(tracker, options.key, port)
    print(f"ready {port}", flush=True)
    loop.join()


if __name__ == "__main__":
    main()
