"""All that deployment takes from TVM's RPC beside its public API.

What stands here may change with any release of TVM: `tests/deploy/test_tvm_rpc_edges.py` has a
canary for each, which says what to look at. `deploy/on_device/` speaks the protocol of
`tvm.rpc.server` and `tvm.rpc.tracker` in C, and `deploy/benchmark/tvm_abi.py` the C ABI of TVM's
runtime.
"""

from __future__ import annotations

import logging
import socket

#: Ends a session, so that the board serves the next one.
CLOSE_SESSION = "CloseRPCConnection"
#: What devices with our server answer: what they are.
DESCRIBE = "shuffledeploy.describe"
#: ... and how the core is that they run on.
PROCESSOR = "shuffledeploy.processor"
#: ... and with how many threads they shall compute; gives how many they do.
USE_THREADS = "shuffledeploy.use_threads"
#: What our native server does: calls a function of a C library with the addresses of tensors.
CALL_C = "shuffledeploy.call_c"


def is_time_out(error: Exception) -> bool:
    """Whether a call ended because the socket's own time-out did."""
    return "Resource temporarily unavailable" in str(error)


def is_session_time_out(error: Exception) -> bool:
    """Whether the server ended a session that took too long."""
    return "RPCSessionTimeoutError" in str(error)


def is_unknown_host(error: Exception) -> bool:
    """Whether a name could not be resolved."""
    return "cannot obtain address" in str(error) or isinstance(error, socket.gaierror)


def is_refused(error: Exception) -> bool:
    """Whether nobody listens."""
    return "Connect to" in str(error)


def is_remote(error: Exception) -> bool:
    """Whether it is the device that raised an error, and the session lives on."""
    return "Error caught from RPC call" in str(error)


def quieten_servers() -> None:
    """Keep TVM's server code from reporting every library that it loads."""
    logging.getLogger("RPCServer").setLevel(logging.WARNING)
