"""Canaries: what deployment takes from TVM's RPC beside its public API is still as it was found.

The texts of time-outs and refused calls are matched in `test_emulator_board.py`, against a board.
"""

from __future__ import annotations

import inspect
import socket

import pytest
from tvm import rpc
from tvm.rpc import server

from shuffledeploy.deploy.devices import tvm_rpc_edges


def test_the_server_has_the_loops_that_the_board_takes() -> None:
    assert list(inspect.signature(server._serving).parameters)[:2] == ["sock", "addr"]
    assert len(inspect.signature(server._listen_loop).parameters) == 6, "board_server.main"


def test_a_refused_connection_and_an_unknown_host_are_told_apart() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(RuntimeError) as refused:
        rpc.connect("127.0.0.1", port)
    assert tvm_rpc_edges.is_refused(refused.value)
    with pytest.raises((RuntimeError, OSError)) as unknown:
        rpc.connect("no-such-host.invalid", 9090)
    assert tvm_rpc_edges.is_unknown_host(unknown.value)
