"""How many threads of TVM's pool compute a network, and on which cores."""

from __future__ import annotations

import os

from shuffledeploy.deploy.devices.opening import Device
from shuffledeploy.deploy.devices.tvm_rpc_edges import USE_THREADS

_POOL_SIZE, _BINDS = "TVM_NUM_THREADS", "TVM_BIND_THREADS"
# Modes of TVM's pool: the fastest cores, and a core of a list for each thread.
_FASTEST, _ONE_CORE_EACH = 1, -2


def use_threads(device: Device, threads: int) -> int:
    """Let a device's runtime compute with so many threads, in the thread that calls.

    A server of ours takes cores with nearly the clock of that which its sessions are pinned to. On
    this machine each thread beside the caller's is bound to a core: TVM's threads wait by yielding,
    and Linux leaves two that yield to each other on one core. The caller's stays free.

    Parameters
    ----------
    device : Device
        Where.
    threads : int
        How many; with fewer cores, or a pool that was made for fewer, TVM takes fewer.

    Returns
    -------
    int
        How many it takes.
    """
    session = device.session
    configure = session.get_function("runtime.config_threadpool")
    if not device.is_local:
        if threads > 1 and (asked := _asked_of_server(device, threads)) is not None:
            return asked
        configure(_FASTEST, threads)
    else:
        # TVM makes a pool when it is first asked for, of as many threads as this says; else it
        # takes every second core for a core's second thread. It would pin the caller, too.
        os.environ[_POOL_SIZE] = str(max(threads, int(os.environ.get(_POOL_SIZE, "1"))))
        os.environ[_BINDS] = "0"
        configure(_FASTEST, threads)
        allowed = os.sched_getaffinity(0)
        if 1 < threads <= len(allowed):
            os.environ[_BINDS] = "1"
            configure(_ONE_CORE_EACH, threads, [str(core) for core in sorted(allowed)[:threads]])
            os.environ[_BINDS] = "0"
            os.sched_setaffinity(0, allowed)
    return int(session.get_function("runtime.NumThreads")())


def _asked_of_server(device: Device, threads: int) -> int | None:
    """Ask the server on a device for threads; None where it is not ours."""
    try:
        ask = device.session.get_function(USE_THREADS)
    except AttributeError:
        return None
    return int(ask(threads))
