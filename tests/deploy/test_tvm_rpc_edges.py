"""Canaries: what deployment takes from TVM's RPC beside its public API is still as it was found.

The texts of time-outs and refused calls are matched in `test_emulator_board.py`, against a board.
"""

from __future__ import annotations

import inspect
import socket

import pytest
from tvm import rpc
from tvm.rpc import base, server

from shuffledeploy.deploy.devices import tvm_rpc_edges


def test_the_protocol_is_the_one_that_our_server_speaks() -> None:
    """Else look at `deploy/on_device/tvm_protocol.h`, whose numbers these are."""
    assert (base.RPC_MAGIC, base.RPC_CODE_SUCCESS, base.RPC_CODE_MISMATCH) == (
        0xFF271, 0xFF271, 0xFF273,
    )  # fmt: skip
    assert base.RPC_TRACKER_MAGIC == 0x2F271
    codes = base.TrackerCode
    assert (codes.PUT, codes.UPDATE_INFO, codes.GET_PENDING_MATCHKEYS) == (3, 5, 7)
    assert "RPCSessionTimeoutError" in inspect.getsource(server._serving)


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
