"""Whoever answers at a port of this machine, as odd as it may be."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# TVM's protocol: `tvm.rpc.base`.
SERVER_MAGIC, TRACKER_MAGIC = 0xFF271, 0x2F271
Peer = Callable[[socket.socket], None]


@contextmanager
def listening(answer: Peer) -> Iterator[int]:
    """Answer everybody who connects to a port of this machine, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()
        server.settimeout(0.1)

        def serve(peer: socket.socket) -> None:
            with suppress(OSError), peer:
                answer(peer)

        def accept() -> None:
            while not ended.is_set():
                with suppress(OSError):
                    peer, _ = server.accept()
                    threading.Thread(target=serve, args=(peer,), daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            thread.join()
